// @ts-check
/**
 * The page: two streams of the hub, one of its statistics and one of events, and what shows them.
 *
 * A browser opens six connections to a host (HTTP/1.1), for all of its tabs together. So there is
 * one stream of events at a time, and a tab that nobody sees gives both of its streams back.
 */
import { byId, refuse, say } from "./dom.js"
import { EventList } from "./events.js"
import { bytes, count, rate } from "./format.js"
import { Plot } from "./plot.js"
import { Publisher } from "./publish.js"
import { Rates } from "./rates.js"
import { EventStream } from "./stream.js"
import { Tables } from "./tables.js"
import { Token } from "./token.js"

const PATIENCE = 10_000
const HIDDEN_FOR = 30_000

const FORMATS = /** @type {Record<string, (value: number | null) => string>} */ ({ delivered_bytes: bytes, subscribers: count })

const state = byId("state", HTMLElement)
const more = byId("state-more", HTMLElement)
const tryNow = byId("try-now", HTMLButtonElement)
const refused = byId("statistics-refused", HTMLElement)
const rates = new Rates()
const plots = [...document.querySelectorAll("figure")].map(
  (figure) => new Plot(figure, FORMATS[figure.dataset.key ?? ""] ?? rate),
)
/** @type {any} */
let snapshot = {}

const token = new Token(() => {
  publisher.forget()
  statistics.resume()
  events.stream.resume()
})
const events = new EventList(token, () => {
  statistics.follow(events.stream)
  tell()
})
const tables = new Tables((topic) => events.subscribe(topic))
const statistics = new EventStream({
  token: () => token.value,
  onEvents: (arrived) => {
    for (const { type, data } of arrived) {
      if (type === "samples") rates.fill(JSON.parse(data))
      else if (type === "statistics") show(JSON.parse(data))
    }
  },
  onState: () => {
    events.stream.follow(statistics)
    tell()
  },
  patience: PATIENCE,
})
const publisher = new Publisher(token)

/** @param {any} arrived */
function show(arrived) {
  snapshot = arrived
  rates.add({ ...arrived.hub, time: arrived.time, uptime: arrived.uptime })
  for (const plot of plots) plot.draw(rates.samples)
  tables.show(arrived)
  tell()
}

/** Say how the page stands to the hub. */
function tell() {
  const [own, theirs] = [statistics.state, events.stream.state]
  const isLost = own.name === "waiting" || theirs.name === "waiting"
  const isOpen = own.name === "open" || (own.name === "refused" && theirs.name === "open")
  if (isLost) set("lost", "Connection lost")
  else if (isOpen && snapshot.hub?.failure) set("bad", "Store fails")
  else if (isOpen && snapshot.server?.draining) set("lost", "Draining")
  else if (isOpen) set("live", "Live")
  else if (own.name === "refused" && theirs.name === "refused") set("bad", "Refused")
  else if (state.dataset.state !== "lost") set("connecting", "Connecting")
  tryNow.hidden = !isLost
  tellRefused()
  tellWait()
}

/**
 * @param {"connecting" | "live" | "lost" | "bad"} name
 * @param {string} words
 */
function set(name, words) {
  state.dataset.state = name
  say(state, words)
  document.body.dataset.state = name
  document.title = name === "live" || name === "connecting" ? "h3trio hub" : `${words} – h3trio hub`
}

/** Say once what was refused, and show nothing that would stay empty. */
function tellRefused() {
  const [own, theirs] = [statistics.state, events.stream.state]
  const both = own.name === "refused" && theirs.name === "refused" && own.status === theirs.status
  for (const [name, { name: is }] of /** @type {const} */ ([["statistics", own], ["events", theirs]])) {
    // While it is tried again it isn't there yet.
    if (is === "refused") document.body.dataset[name] = both ? "both" : "refused"
    else if (is !== "connecting") delete document.body.dataset[name]
  }
  const isTaken = [own, theirs].some(({ name }) => name === "open") && snapshot.takes_tokens !== false
  token.tell(isTaken ? "taken" : own.status === 401 || theirs.status === 401 ? "refused" : "unknown")
  if (own.name !== "refused") return void (refused.hidden = own.name !== "connecting" || refused.hidden)
  const what = both ? "its statistics and its events" : "its statistics"
  const text = own.status === 404 ? "This hub gives no statistics." : `The hub refused ${what} (${own.status}): ${own.detail}`
  if (!refused.hidden && refused.firstChild?.textContent === text) return
  const retry = /** @type {[string, () => void]} */ (["Try again", resumeBoth])
  const ask = /** @type {[string, () => void]} */ (["Enter a token", () => token.ask()])
  refuse(refused, text, ...(own.status === 401 || own.status === 403 ? [ask, retry] : [retry]))
}

function resumeBoth() {
  for (const stream of [statistics, events.stream]) if (stream.state.name === "refused") stream.resume()
}

/** Count down to the next try. */
function tellWait() {
  const waiting = [statistics.state, events.stream.state].filter(({ name }) => name === "waiting")
  const [next] = waiting.sort((one, other) => one.until - other.until)
  const seconds = next && Math.max(0, Math.ceil((next.until - performance.now()) / 1000))
  say(more, next ? `${next.detail}; next try in ${seconds} s` : "")
}

/** @type {number | undefined} */
let hiding
function mindVisibility() {
  clearTimeout(hiding)
  if (document.hidden) {
    hiding = setTimeout(() => {
      statistics.stop()
      events.stream.stop()
    }, HIDDEN_FOR)
  } else {
    for (const stream of [statistics, events.stream]) if (stream.state.name === "stopped") stream.resume()
  }
}
document.addEventListener("visibilitychange", mindVisibility)
window.addEventListener("online", tryBoth)
tryNow.addEventListener("click", tryBoth)
setInterval(tellWait, 1000)

function tryBoth() {
  statistics.tryNow()
  events.stream.tryNow()
}

statistics.open("statistics?interval=1&samples=on")
events.subscribe()
mindVisibility()
