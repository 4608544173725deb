// @ts-check
/**
 * The list of events, and the form that chooses them.
 *
 * Another topic is another stream. Its events come as JSON, for what `/events` sends says neither
 * topics nor times, and of a crowd of them only the newest. What arrives is drawn once a frame at
 * most, and only what stays in the list.
 */
import { byId, element, refuse, say } from "./dom.js"
import { bytes, count, moment, some } from "./format.js"
import { EventStream } from "./stream.js"

/** @typedef {import("./sse.js").StreamEvent} StreamEvent */

const MOST_SHOWN = 200
const SUMMARY_CHARACTERS = 200
// A hub sends a comment after 15 s of silence, but its `--heartbeat-interval` may be minutes, and a
// page that is less patient would come back for ever. The statistics come each second, and find a
// dead hub for both streams; this is for who may not see them.
export const PATIENCE = 600_000

export class EventList {
  stream
  #token
  #form = byId("subscribe", HTMLFormElement)
  #list = byId("events", HTMLOListElement)
  #empty = byId("events-empty", HTMLElement)
  #refused = byId("events-refused", HTMLElement)
  #state = byId("events-state", HTMLElement)
  #count = byId("events-count", HTMLElement)
  #title = byId("events-title", HTMLElement)
  #pause = byId("pause", HTMLButtonElement)
  /** @type {HTMLElement[]} what isn't drawn yet, the oldest first */
  #waiting = []
  #isDue = false
  #isPaused = false
  /** @type {string | null} the id behind which a lost stream goes on, until something comes */
  #lostBehind = null

  /**
   * @param {import("./token.js").Token} token
   * @param {() => void} changed called with each new state of the stream
   */
  constructor(token, changed) {
    this.#token = token
    this.stream = new EventStream({
      token: () => token.value,
      onEvents: (events) => this.#take(events),
      onState: (state) => {
        this.#tell(state)
        changed()
      },
      patience: PATIENCE,
    })
    this.#form.addEventListener("submit", (submit) => {
      submit.preventDefault()
      this.subscribe()
    })
    this.#field("from").addEventListener("change", () => this.#offerCount())
    this.#pause.addEventListener("click", () => this.#setPaused(!this.#isPaused))
    byId("clear", HTMLButtonElement).addEventListener("click", () => this.#clear())
    this.#offerCount()
  }

  /**
   * Begin with what the form says.
   * @param {string} [topic] put into the form first
   */
  subscribe(topic) {
    if (topic !== undefined) this.#field("topic").value = topic
    const chosen = this.#field("topic").value
    const from = this.#field("from").value
    const query = new URLSearchParams()
    if (chosen) query.set("topic", chosen)
    if (from === "last") query.set("first", this.#field("count").value)
    this.#setPaused(false)
    this.#clear()
    this.#lostBehind = null
    say(this.#title, chosen ? `Events on ${chosen}` : "Events")
    this.stream.open(`dashboard/events${query.size ? `?${query}` : ""}`)
  }

  /** @param {StreamEvent[]} arrived */
  #take(arrived) {
    const events = arrived.filter(({ type }) => type !== "begin")
    if (!events.length) return
    if (this.#lostBehind !== null) {
      // A gap is told first, and by a hub that forgot the id nothing went on.
      const isUnknown = events.some(({ type, data }) => type === "gap" && JSON.parse(data).gap === "unknown")
      const from = this.#lostBehind ? `, and went on behind ${this.#lostBehind}` : ", and went with what comes"
      this.#waiting.push(note(`Back after a lost connection${isUnknown ? "" : from}`))
      this.#lostBehind = null
    }
    // Of a burst only the end stays in the list, so only that is made.
    for (const { type, data } of events.slice(-MOST_SHOWN)) {
      this.#waiting.push(type === "gap" ? note(gapText(JSON.parse(data).gap), "gap") : row(JSON.parse(data)))
    }
    this.#waiting = this.#waiting.slice(-MOST_SHOWN)
    this.#drawSoon()
  }

  #drawSoon() {
    if (this.#isDue) return
    this.#isDue = true
    requestAnimationFrame(() => {
      this.#isDue = false
      this.#draw()
    })
  }

  #draw() {
    if (!this.#isPaused && this.#waiting.length) {
      this.#list.prepend(...this.#waiting.reverse())
      this.#waiting = []
      while (this.#list.children.length > MOST_SHOWN) this.#list.lastElementChild?.remove()
    }
    this.#tellCount()
  }

  #clear() {
    this.#waiting = []
    this.#list.replaceChildren()
    this.#tellCount()
  }

  /** @param {boolean} isPaused */
  #setPaused(isPaused) {
    this.#isPaused = isPaused
    this.#pause.setAttribute("aria-pressed", String(isPaused))
    this.#drawSoon()
  }

  #tellCount() {
    const shown = this.#list.children.length
    const seen = shown < MOST_SHOWN ? some(this.#list.querySelectorAll(":scope > :not(.note)").length, "event") : `the newest ${MOST_SHOWN}`
    const paused = `paused, ${count(this.#waiting.length)}${this.#waiting.length < MOST_SHOWN ? "" : " or more"} new`
    say(this.#count, this.#isPaused ? paused : seen)
    this.#empty.hidden = shown > 0 || !this.#refused.hidden
  }

  /** @param {import("./stream.js").State} state */
  #tell(state) {
    const words = { stopped: "Stopped", connecting: "Connecting", open: "Live", waiting: "Connection lost", refused: "Refused" }
    // A lost stream stays that while it tries.
    if (state.name !== "connecting" || this.#lostBehind === null) say(this.#state, words[state.name])
    this.#refused.hidden = true
    if (state.name === "refused") {
      const asks = state.status === 401 || state.status === 403
      const text = `The hub refused this stream (${state.status}): ${state.detail}`
      const retry = /** @type {[string, () => void]} */ (["Try again", () => this.stream.resume()])
      const token = /** @type {[string, () => void]} */ (["Enter a token", () => this.#token.ask()])
      refuse(this.#refused, text, ...(asks ? [token, retry] : [retry]))
    }
    if (state.name === "waiting") this.#lostBehind ??= this.stream.lastEventId
    this.#drawSoon()
  }

  #offerCount() {
    this.#field("count").disabled = this.#field("from").value !== "last"
  }

  /** @param {string} name */
  #field(name) {
    return /** @type {HTMLInputElement} */ (this.#form.elements.namedItem(name))
  }
}

/**
 * @typedef {object} Shown
 * @property {string} id
 * @property {string[]} topics those that may be named
 * @property {boolean} private
 * @property {number} published Unix time in seconds
 * @property {string} type
 * @property {string} data its beginning, if it is long
 * @property {number} size bytes of the whole data
 */

/** @param {Shown} event */
function row({ id, topics, private: isPrivate, published, type, data, size }) {
  const shown = new TextEncoder().encode(data).length < size ? `${data}…` : data
  const head = shown.slice(0, SUMMARY_CHARACTERS)
  const isLong = head.includes("\n") || shown.length > SUMMARY_CHARACTERS
  const tag = type === "message" ? [] : [element("span", "type", type), " "]
  const names = element("span", "clamped", topics.join(", "))
  names.title = topics.join(", ")
  const topic = element("span", "topic", names, ...(isPrivate ? [element("span", "quiet", " private")] : []))
  const made = element("li", "", time(new Date(1000 * published)), topic)
  if (isLong) {
    const summary = element("summary", "", element("span", "quiet", `${bytes(size)} `), ...tag, head.replaceAll("\n", " "))
    made.append(element("details", "data", summary, element("pre", "", shown)))
  } else {
    made.append(element("span", "data", ...tag, shown))
  }
  made.append(element("code", "id quiet", id))
  return made
}

/**
 * @param {string} text
 * @param {string} kind
 */
function note(text, kind = "") {
  return element("li", `note ${kind}`, time(new Date()), element("span", "data", text))
}

/** @param {Date} date */
function time(date) {
  const made = element("time", "quiet", moment(date, new Date()))
  made.setAttribute("datetime", date.toISOString())
  made.title = date.toLocaleString()
  return made
}

/** @param {string} gap */
function gapText(gap) {
  if (gap === "unknown") return "Gap: the hub doesn't know the last event of this list any more. What it has follows."
  if (gap === "trimmed") return "Gap: what came in between is no longer kept. What is left follows."
  return `Left out: more came at once than the newest ${MOST_SHOWN}.`
}
