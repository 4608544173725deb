// @ts-check
/**
 * One event stream that comes back by itself: what EventSource does, with a token, and with
 * what the hub answers instead of a stream.
 *
 * It waits as long as the hub asks for by `retry:`, twice as long after each failure in a row, and
 * never less than a `Retry-After`. An answer that another try wouldn't change ends it.
 *
 * It is open once it brings an id or data, as every stream of the hub does at once: a proxy may
 * answer for an absent hub, with a stream that has neither and ends.
 */
import { Parser } from "./sse.js"

/** @typedef {import("./sse.js").StreamEvent} StreamEvent */

/**
 * @typedef {object} State
 * @property {"stopped" | "connecting" | "open" | "waiting" | "refused"} name
 * @property {string} detail why it waits or was refused, for people
 * @property {number} status that of the hub's answer, 0 if there was none
 * @property {number} until when it tries again, as `performance.now()`, if it waits
 * @property {boolean} isAway whether it waits as nothing answered, or a proxy for the hub
 * @property {boolean} afterSilence whether it is open again after it had fallen silent
 */

/**
 * @typedef {object} Options
 * @property {() => string | null} token what to send as a bearer token
 * @property {(events: StreamEvent[]) => void} onEvents called with what arrived together
 * @property {(state: State) => void} onState called with each new state
 * @property {number} patience milliseconds of silence after which the stream is given up
 */

const FIRST_WAIT = 2000
// Any publisher may write `retry: 0`, which would have every open page ask without a pause.
const SHORTEST_WAIT = 500
const LONGEST_WAIT = 30_000
// A timeout, too many, and what proxies and a hub that drains say; the others stay as they are.
const MAY_MEND = (/** @type {number} */ status) => status === 408 || status === 429 || status >= 500

const NOTHING = { detail: "", status: 0, until: 0, isAway: false, afterSilence: false }

export class EventStream {
  /** @type {State} */
  state = { name: "stopped", ...NOTHING }
  /** The id it goes on from. */
  lastEventId = ""

  #options
  #url = ""
  #run = new AbortController()
  #retry = FIRST_WAIT
  #fellSilent = false
  #tryNow = () => {}

  /** @param {Options} options */
  constructor(options) {
    this.#options = options
  }

  /**
   * Begin a stream, and end the one before.
   * @param {string} url relative to the page
   */
  open(url) {
    this.#url = url
    this.lastEventId = ""
    this.resume()
  }

  /** Go on where the stream was stopped or refused. */
  resume() {
    this.#run.abort()
    this.#run = new AbortController()
    void this.#keepOpen(this.#run.signal)
  }

  /** End it. */
  stop() {
    this.#run.abort()
    this.#set("stopped")
  }

  /** Try at once, if it waits: somebody asks for it. */
  tryNow() {
    this.#tryNow()
  }

  /**
   * Learn from another stream, if that is open, that the hub is there. Where it was away from
   * here it is tried at once. Where the other one had fallen silent, this one's connection may be
   * as dead, and is made anew.
   *
   * A stream that was open and ended isn't hurried: two that end at once would hurry each other.
   * @param {EventStream} other
   */
  follow(other) {
    if (other.state.name !== "open") return
    if (this.state.isAway) this.#tryNow()
    else if (other.state.afterSilence && ["open", "connecting"].includes(this.state.name)) this.resume()
  }

  /** @param {AbortSignal} ended */
  async #keepOpen(ended) {
    let failures = 0
    while (!ended.aborted) {
      this.#set("connecting")
      const { detail, status, wait, opened } = await this.#attempt(ended)
      if (ended.aborted) return
      failures = opened ? 1 : failures + 1
      if (status && !MAY_MEND(status)) return this.#set("refused", { detail, status })
      const backoff = Math.min(this.#retry * 2 ** (failures - 1), LONGEST_WAIT)
      await this.#wait(Math.max(backoff, wait), { detail, status, isAway: !opened && status === 0 }, ended)
    }
  }

  /**
   * Open the stream and read it to its end.
   * @param {AbortSignal} ended
   */
  async #attempt(ended) {
    const silence = new AbortController()
    const both = AbortSignal.any([ended, silence.signal])
    let timer = setTimeout(() => silence.abort(), this.#options.patience)
    const outcome = { detail: "the stream ended", status: 0, wait: 0, opened: false }
    try {
      const answer = await fetch(this.#url, { headers: this.#headers(), signal: both, cache: "no-store" })
      if (ended.aborted) return outcome
      const type = answer.headers.get("content-type") ?? ""
      if (answer.status !== 200 || !type.startsWith("text/event-stream")) {
        outcome.status = answer.status === 200 ? 406 : answer.status
        outcome.wait = 1000 * Number(answer.headers.get("retry-after") ?? 0) || 0
        outcome.detail = await refusalText(answer)
        return outcome
      }
      const parser = new Parser(this.lastEventId)
      const decoder = new TextDecoder()
      const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader()
      for (;;) {
        const { done, value } = await reader.read()
        if (done || ended.aborted) return outcome
        clearTimeout(timer)
        timer = setTimeout(() => silence.abort(), this.#options.patience)
        const events = parser.feed(decoder.decode(value, { stream: true }))
        this.lastEventId = parser.lastEventId
        this.#retry = Math.max(parser.retry ?? this.#retry, SHORTEST_WAIT)
        if (parser.hasContent && !outcome.opened) {
          outcome.opened = true
          this.#set("open", { afterSilence: this.#fellSilent })
          this.#fellSilent = false
        }
        if (events.length) this.#call(this.#options.onEvents, events)
      }
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof DOMException)) throw error
      this.#fellSilent ||= silence.signal.aborted
      outcome.detail = silence.signal.aborted ? "the hub fell silent" : "the hub can't be reached"
      return outcome
    } finally {
      clearTimeout(timer)
    }
  }

  #headers() {
    const headers = new Headers({ Accept: "text/event-stream" })
    // A header's value is bytes here, one for each character: those of the id in UTF-8.
    if (this.lastEventId) headers.set("Last-Event-ID", String.fromCharCode(...new TextEncoder().encode(this.lastEventId)))
    const token = this.#options.token()
    if (token) headers.set("Authorization", `Bearer ${token}`)
    return headers
  }

  /**
   * @param {number} milliseconds
   * @param {Partial<State>} why
   * @param {AbortSignal} ended
   */
  async #wait(milliseconds, why, ended) {
    this.#set("waiting", { ...why, until: performance.now() + milliseconds })
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds)
      this.#tryNow = () => {
        clearTimeout(timer)
        resolve(undefined)
      }
      ended.addEventListener("abort", this.#tryNow)
    })
    ended.removeEventListener("abort", this.#tryNow)
  }

  /**
   * @param {State["name"]} name
   * @param {Partial<State>} rest
   */
  #set(name, rest = {}) {
    this.state = { ...NOTHING, ...rest, name }
    this.#call(this.#options.onState, this.state)
  }

  /**
   * Call one of ours. Its mistakes go to the console, and aren't taken for those of the network.
   * @template T
   * @param {(given: T) => void} what
   * @param {T} given
   */
  #call(what, given) {
    try {
      what(given)
    } catch (error) {
      reportError(error)
    }
  }
}

/**
 * Say what an answer says that isn't what was asked for.
 * @param {Response} answer
 */
export async function refusalText(answer) {
  const text = (await answer.text()).trim()
  const isPlain = (answer.headers.get("content-type") ?? "").startsWith("text/plain")
  return isPlain && text ? text.slice(0, 300) : `the answer was ${answer.status} ${answer.statusText}`.trim()
}
