// @ts-check
/** The few things that every part of the page does with elements. */

/**
 * Find an element that the page surely has.
 * @template {HTMLElement} E
 * @param {string} id
 * @param {new () => E} kind
 * @returns {E}
 */
export function byId(id, kind) {
  const found = document.getElementById(id)
  if (!(found instanceof kind)) throw new Error(`#${id} isn't a ${kind.name}`)
  return found
}

/**
 * Make an element that holds text and other elements.
 * @param {string} tag
 * @param {string} className
 * @param {...(string | Node)} inside
 */
export function element(tag, className, ...inside) {
  const made = document.createElement(tag)
  if (className) made.className = className
  made.append(...inside)
  return made
}

/**
 * Change a text only where it differs: what is selected stays selected.
 * @param {Element} where
 * @param {string} text
 */
export function say(where, text) {
  if (where.textContent !== text) where.textContent = text
}

/**
 * Make the parts of a text of the hub's, so that no line ends within a flag, behind one of its hyphens.
 * @param {string} text
 */
export function unbroken(text) {
  return text.split(/(--[\w-]+)/).map((part, n) => (n % 2 ? element("span", "flag", part) : part))
}

/**
 * Say in the place of what was refused that it was, and what to do about it.
 * @param {HTMLElement} where
 * @param {string} text
 * @param {[label: string, act: () => void][]} buttons
 */
export function refuse(where, text, ...buttons) {
  const made = buttons.map(([label, act]) => {
    const button = element("button", "", label)
    button.setAttribute("type", "button")
    button.addEventListener("click", act)
    return button
  })
  where.replaceChildren(element("p", "", ...unbroken(text)), element("p", "buttons", ...made))
  where.hidden = false
}

/**
 * The body of a table, whose rows stay the same elements while their numbers change, so that
 * neither the focus nor a selection is lost once a second.
 */
export class Rows {
  #body
  #empty
  /** @type {Map<string, HTMLTableRowElement>} */
  #rows = new Map()

  /** @param {string} id of the table; an `.empty` behind it is shown while there are no rows */
  constructor(id) {
    const table = byId(id, HTMLTableElement)
    this.#body = table.tBodies[0]
    const next = table.nextElementSibling
    this.#empty = next instanceof HTMLElement && next.classList.contains("empty") ? next : null
  }

  /**
   * Show these rows, in this order.
   * @param {string[][]} rows the first cell of each is its head
   * @param {(head: HTMLElement, row: string[]) => void} [fillHead] fills a new row's head, by
   *   whose text, no two of them the same, the row is then known
   */
  show(rows, fillHead) {
    const old = this.#rows
    this.#rows = new Map()
    rows.forEach((row, at) => {
      const key = fillHead ? row[0] : String(at)
      const shown = old.get(key) ?? this.#make(row, fillHead)
      old.delete(key)
      row.forEach((text, n) => {
        if (n || !fillHead) say(shown.cells[n], text)
      })
      if (this.#body.rows[at] !== shown) this.#body.insertBefore(shown, this.#body.rows[at] ?? null)
      this.#rows.set(key, shown)
    })
    for (const gone of old.values()) gone.remove()
    if (this.#empty) this.#empty.hidden = rows.length > 0
  }

  /**
   * @param {string[]} row
   * @param {(head: HTMLElement, row: string[]) => void} [fillHead]
   */
  #make(row, fillHead) {
    const made = document.createElement("tr")
    row.forEach((_text, n) => {
      const cell = document.createElement(n ? "td" : "th")
      if (n === 0) cell.setAttribute("scope", "row")
      made.append(cell)
    })
    fillHead?.(made.cells[0], row)
    return made
  }
}
