// @ts-check
/**
 * The event stream format (WHATWG HTML, section 9.2.6): text in, events out, no I/O.
 *
 * The browser's own reader, EventSource, can't send a token, and tells nothing of an answer that
 * isn't 200.
 */

/**
 * @typedef {object} StreamEvent
 * @property {string} type `message` unless the event says otherwise
 * @property {string} data its lines, joined by LF
 * @property {string} id the last event id in force, which an earlier event may have set
 */

export class Parser {
  /** The id to come back with. */
  lastEventId
  /** @type {number | null} How long to wait before coming back, in milliseconds, if it was said. */
  retry = null
  /** Whether there was more than comments and `retry:`, an id or data: what a proxy may say for an
   * absent server is none of it. */
  hasContent = false

  #type = ""
  /** @type {string[]} */
  #data = []
  #id
  /** A line whose end hasn't come yet. */
  #line = ""
  /** Whether the last line ended in CR: an LF that comes next is the rest of its end. */
  #afterCr = false

  /** @param {string} lastEventId that of the stream which this one goes on from */
  constructor(lastEventId = "") {
    this.lastEventId = this.#id = lastEventId
  }

  /**
   * Take some more of the stream, however it was cut.
   * @param {string} text decoded, without a byte order mark
   * @returns {StreamEvent[]} what is complete by it
   */
  feed(text) {
    if (text === "") return []
    if (this.#afterCr && text[0] === "\n") text = text.slice(1)
    const events = []
    let start = 0
    for (const end of text.matchAll(/\r\n|\n|\r/g)) {
      const line = this.#line + text.slice(start, end.index)
      this.#line = ""
      start = end.index + end[0].length
      if (line !== "") this.#field(line)
      else events.push(...this.#dispatch())
    }
    this.#line += text.slice(start)
    this.#afterCr = text === "" ? false : text.endsWith("\r")
    return events
  }

  /** @param {string} line */
  #field(line) {
    const colon = line.indexOf(":")
    if (colon === 0) return // a comment
    const name = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1)
    if (name === "data" || name === "id") this.hasContent = true
    if (name === "data") this.#data.push(value)
    else if (name === "event") this.#type = value
    else if (name === "id" && !value.includes("\0")) this.#id = value
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value)
  }

  /** @returns {StreamEvent[]} one, or none where a block had no data */
  #dispatch() {
    this.lastEventId = this.#id
    const [type, data] = [this.#type, this.#data]
    this.#type = ""
    this.#data = []
    if (data.length === 0) return []
    return [{ type: type || "message", data: data.join("\n"), id: this.#id }]
  }
}
