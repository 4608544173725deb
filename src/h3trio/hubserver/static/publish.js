// @ts-check
/**
 * The form that publishes. A publish without an answer is repeated under the same
 * `Idempotency-Key`, so that pressing the button again doesn't publish twice.
 */
import { byId, say, unbroken } from "./dom.js"
import { refusalText } from "./stream.js"

export class Publisher {
  #form = byId("publish", HTMLFormElement)
  #outcome = byId("published", HTMLElement)
  #token
  /** What was sent without an answer, and its key. */
  #unanswered = { what: "", key: "" }

  /** @param {import("./token.js").Token} token */
  constructor(token) {
    this.#token = token
    this.#form.addEventListener("submit", (submit) => {
      submit.preventDefault()
      void this.#publish()
    })
    this.#field("data").addEventListener("keydown", (key) => {
      if (key.key === "Enter" && (key.ctrlKey || key.metaKey)) this.#form.requestSubmit()
    })
  }

  /** Forget what was said of a refusal: there is another token. */
  forget() {
    if (this.#outcome.dataset.kind === "bad") this.#say("", "")
  }

  async #publish() {
    const [topic, data, type, id] = ["topic", "data", "type", "id"].map((name) => this.#field(name).value)
    // In the query: browsers and proxies rewrite a path with `..` or `//` in it.
    const fields = Object.entries({ topic, event: type, id }).filter(([, value]) => value !== "")
    const url = `events?${new URLSearchParams(fields)}`
    const what = `${url}\n${data}`
    if (this.#unanswered.what !== what) this.#unanswered = { what, key: newKey() }
    const sent = this.#unanswered
    const headers = new Headers({ "Content-Type": "text/plain; charset=utf-8", "Idempotency-Key": sent.key })
    if (this.#token.value) headers.set("Authorization", `Bearer ${this.#token.value}`)
    this.#say("Publishing…", "")
    try {
      const answer = await fetch(url, { method: "POST", body: data, headers })
      if (!answer.ok) return this.#refused(answer.status, await refusalText(answer))
      const stored = await answer.json()
      // Meanwhile somebody may have typed on, or published more.
      if (this.#unanswered === sent) this.#unanswered = { what: "", key: "" }
      this.#say(`Stored as ${stored.id}`, "good")
      for (const [name, value] of Object.entries({ data, id })) {
        if (this.#field(name).value === value) this.#field(name).value = ""
      }
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof SyntaxError)) throw error
      this.#say("No answer. It may be stored; publish again, and it is stored once.", "bad")
    }
  }

  /**
   * @param {number} status
   * @param {string} detail
   */
  #refused(status, detail) {
    this.#say("", "bad")
    this.#outcome.append(...unbroken(`Refused (${status}): ${detail}`))
    if (status !== 401 && status !== 403) return
    const button = document.createElement("button")
    button.type = "button"
    button.className = "small"
    button.textContent = "Enter a token"
    button.addEventListener("click", () => this.#token.ask())
    this.#outcome.append(" ", button)
  }

  /**
   * @param {string} text
   * @param {"" | "good" | "bad"} kind
   */
  #say(text, kind) {
    this.#outcome.dataset.kind = kind
    say(this.#outcome, text)
  }

  /** @param {string} name */
  #field(name) {
    return /** @type {HTMLInputElement} */ (this.#form.elements.namedItem(name))
  }
}

// Not crypto.randomUUID: that is only there where the page came over TLS.
function newKey() {
  const random = crypto.getRandomValues(new Uint8Array(16))
  return Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("")
}
