// @ts-check
/**
 * The list of events, and the form that chooses them.
 *
 * An event doesn't carry its topics, so the hub does the choosing: another topic is another
 * stream. What arrives is drawn once a frame at most, and only what stays in the list.
 */
import { byId, element, refuse, say } from "./dom.js"
import { bytes, clock, count, some } from "./format.js"
import { EventStream } from "./stream.js"

/** @typedef {import("./sse.js").StreamEvent} StreamEvent */

const MOST_SHOWN = 200
const MOST_CHARACTERS = 20_000
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
  #seen = 0
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
    // Not as an event: a `fetch` whose cache is off looks like an EventSource, and reads the head.
    const query = new URLSearchParams({ cursor: "off" })
    if (chosen) query.set("topic", chosen)
    if (from === "oldest") query.set("first", "oldest")
    if (from === "last") query.set("first", this.#field("count").value)
    this.#setPaused(false)
    this.#clear()
    this.#lostBehind = null
    say(this.#title, chosen ? `Events on ${chosen}` : "Events")
    this.stream.open(`events?${query}`)
  }

  /** @param {StreamEvent[]} events */
  #take(events) {
    this.#seen += events.length
    if (this.#lostBehind !== null) {
      const from = this.#lostBehind ? `on behind ${this.#lostBehind}` : "with what comes"
      this.#waiting.push(note(`Back after a lost connection, and went ${from}`))
      this.#lostBehind = null
    }
    // Of a burst only the end stays in the list, so only that is made.
    for (const event of events.slice(-MOST_SHOWN)) this.#waiting.push(row(event))
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
    this.#seen = 0
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
    const seen = some(this.#seen, "event")
    const shown = this.#seen > MOST_SHOWN ? `, the newest ${MOST_SHOWN} shown` : ""
    const paused = `paused, ${count(this.#waiting.length)}${this.#waiting.length < MOST_SHOWN ? "" : " or more"} new`
    say(this.#count, this.#isPaused ? paused : seen + shown)
    this.#empty.hidden = this.#list.children.length > 0 || !this.#refused.hidden
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

/** @param {StreamEvent} event */
function row({ type, data, id }) {
  if (type === "reset") return note(resetText(data), "gap")
  const shown = data.length > MOST_CHARACTERS ? `${data.slice(0, MOST_CHARACTERS)}…` : data
  const head = shown.slice(0, SUMMARY_CHARACTERS)
  const isLong = head.includes("\n") || shown.length > SUMMARY_CHARACTERS
  const tag = type === "message" ? [] : [element("span", "type", type), " "]
  const made = element("li", "", element("time", "quiet", clock(new Date())))
  if (isLong) {
    const size = bytes(new TextEncoder().encode(data).length)
    const summary = element("summary", "", element("span", "quiet", `${size} `), ...tag, head.replaceAll("\n", " "))
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
  return element("li", `note ${kind}`, element("time", "quiet", clock(new Date())), element("span", "data", text))
}

/**
 * Say in words what the hub's own event `reset` says.
 * @param {string} data
 */
function resetText(data) {
  try {
    const { reason, id } = JSON.parse(data)
    if (reason === "unknown") return `Gap: the hub doesn't know the id ${id}. What it has follows.`
    if (reason === "trimmed") return "Gap: what came in between is no longer kept. What is left follows."
    if (reason === "lagged") return "Gap: this page was too slow. It goes on with what comes."
    return `Gap: ${reason}`
  } catch {
    return `Gap: ${data}`
  }
}
