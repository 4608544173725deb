// @ts-check
/**
 * The token, and the dialog that takes one. It is kept for this tab alone, in sessionStorage, and
 * sent as a header, never in a URL.
 */
import { byId, say } from "./dom.js"
import { duration } from "./format.js"

const KEY = "h3trio.token"

export class Token {
  /** @type {string | null} */
  value = sessionStorage.getItem(KEY)

  #dialog = byId("token", HTMLDialogElement)
  #button = byId("token-open", HTMLButtonElement)
  #says = byId("token-says", HTMLElement)
  #remove = byId("token-remove", HTMLButtonElement)
  #changed

  /** @param {() => void} changed called when there is another token, or none any more */
  constructor(changed) {
    this.#changed = changed
    this.#button.addEventListener("click", () => this.ask())
    const form = /** @type {HTMLFormElement} */ (this.#dialog.querySelector("form"))
    form.addEventListener("submit", (submit) => {
      submit.preventDefault()
      // As it is copied out of a header or a shell, quotes and a line's end around it.
      const pasted = this.#input.value.replace(/^\s*(authorization:\s*)?(bearer\s+)?["']?|["'\s]+$/gi, "")
      if (!/^[\x21-\x7e]+$/.test(pasted)) return say(this.#says, "That isn't a token: it has no spaces and no line ends.")
      this.#set(pasted)
    })
    this.#input.addEventListener("input", () => say(this.#says, claims(this.#input.value)))
    form.querySelector("[value=cancel]")?.addEventListener("click", () => this.#dialog.close())
    this.#remove.addEventListener("click", () => this.#set(null))
    this.tell("unknown")
  }

  /** Open the dialog. */
  ask() {
    this.#remove.hidden = this.value === null
    this.#input.value = this.value ?? ""
    say(this.#says, claims(this.#input.value))
    this.#dialog.showModal()
    this.#input.focus()
  }

  get #input() {
    return /** @type {HTMLInputElement} */ (this.#dialog.querySelector("input"))
  }

  /** @param {string | null} value */
  #set(value) {
    this.value = value
    if (value === null) sessionStorage.removeItem(KEY)
    else sessionStorage.setItem(KEY, value)
    this.#dialog.close()
    this.tell("unknown")
    this.#changed()
  }

  /**
   * Say beside the page how the hub took the token.
   * @param {"taken" | "refused" | "unknown"} outcome
   */
  tell(outcome) {
    const words = { taken: "Token ✓", refused: "Token refused", unknown: "Token" }
    say(this.#button, this.value === null ? "Token…" : words[outcome])
    this.#button.dataset.outcome = this.value === null ? "unknown" : outcome
  }
}

/**
 * Say what a token says of itself, if it can be read; only the hub can tell whether it is good.
 * @param {string} token
 */
export function claims(token) {
  try {
    const payload = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")
    const utf8 = Uint8Array.from(atob(payload), (character) => character.charCodeAt(0))
    const { sub, exp } = JSON.parse(new TextDecoder().decode(utf8))
    const left = typeof exp === "number" ? exp - Date.now() / 1000 : null
    const end = left === null ? "without an end" : left < 0 ? "expired" : `for ${duration(left)} more`
    return `${typeof sub === "string" ? sub : "no subject"}, ${end}`
  } catch {
    return ""
  }
}
