// @ts-check
/** The tables and facts of one snapshot of the hub's statistics; fields may be missing. */
import { byId, element, Rows, say } from "./dom.js"
import { bytes, count, duration, latency, NOTHING, some } from "./format.js"

/** Of the busiest topics of a node, and of a name, as much as fits beside the others. */
const NODE_TOPICS = 3
const LONGEST_NAME = 40

/** What ended in the way it was meant to, and how that is called; the other reasons are drops. */
const ENDS = /** @type {Record<string, string>} */ ({
  completed: "answered",
  client_closed: "the client left",
  lease: "the lease was over",
  draining: "the server goes away",
})
const DROPS = /** @type {Record<string, string>} */ ({
  slow: "too slow",
  lagged: "fell out of the history",
  connection_lost: "connection lost",
  auth_expired: "token expired",
  handler_error: "error in a handler",
  protocol_error: "not HTTP",
  timeout: "the request stalled",
})

export class Tables {
  #topics = new Rows("topics")
  #slow = new Rows("slow")
  #ended = new Rows("ended")
  #history = new Rows("history")
  #latency = new Rows("latency")
  #nodes = new Rows("nodes")
  #runs = new Rows("runs")
  #known = byId("known-topics", HTMLDataListElement)
  #knownNames = ""
  #choose

  /** @param {(topic: string) => void} choose called with a topic whose events are to be shown */
  constructor(choose) {
    this.#choose = choose
  }

  /** @param {any} snapshot */
  show(snapshot) {
    const { hub = {}, history = {} } = snapshot
    const server = withoutWatchers(snapshot.server ?? {}, snapshot.watchers ?? {})
    say(byId("uptime", HTMLElement), duration(snapshot.uptime))
    say(byId("version", HTMLElement), snapshot.version ?? NOTHING)
    say(byId("store", HTMLElement), storeLine(history))
    say(byId("published-total", HTMLElement), count(hub.published))
    say(byId("delivered-total", HTMLElement), count(hub.delivered))
    say(byId("bytes-total", HTMLElement), bytes(hub.delivered_bytes))
    say(byId("streams", HTMLElement), some(server.streams, "stream"))
    this.#showTopics(snapshot.topics ?? [], snapshot.topics_total)
    this.#showSlow(snapshot.slow ?? [], snapshot.time, hub)
    this.#ended.show(endings(server, hub, accessWithoutWatchers(snapshot.access ?? {}, snapshot.watchers ?? {})))
    this.#history.show(historyRows(hub, history))
    this.#latency.show(latencyRows(snapshot.latency ?? {}))
    byId("runs-panel", HTMLElement).hidden = snapshot.runs == null
    say(byId("runs-count", HTMLElement), `${count(snapshot.runs?.running)} under way`)
    this.#runs.show(runRows(snapshot.runs ?? {}))
    this.#showNodes(snapshot.nodes ?? [], snapshot.node)
  }

  /**
   * Show the hubs that share a store, if there are some.
   * @param {any[]} nodes
   * @param {string | undefined} own the name of the one that is asked
   */
  #showNodes(nodes, own) {
    byId("nodes-panel", HTMLElement).hidden = nodes.length < 2
    this.#nodes.show(nodes.map((node) => nodeRow(node, own)))
    const subscribers = nodes.reduce((sum, node) => sum + node.subscribers, 0)
    say(byId("nodes-count", HTMLElement), `${count(nodes.length)}, with ${some(subscribers, "subscriber")}`)
  }

  /**
   * @param {any[]} topics
   * @param {number | undefined} total
   */
  #showTopics(topics, total = topics.length) {
    const rows = topics.map(({ topic, subscribers, published }) => [topic, count(subscribers), count(published)])
    this.#topics.show(rows, (head, [topic]) => {
      const button = document.createElement("button")
      button.type = "button"
      button.className = "link"
      button.append(element("span", "clamped", topic))
      button.title = `Show the events on ${topic}`
      button.addEventListener("click", () => this.#choose(topic))
      head.append(button)
    })
    say(byId("topics-count", HTMLElement), total > rows.length ? `${rows.length} of ${count(total)}` : count(total))
    const names = rows.map(([topic]) => topic).sort()
    if (names.join("\n") === this.#knownNames) return
    this.#knownNames = names.join("\n")
    this.#known.replaceChildren(...names.map((topic) => new Option(topic)))
  }

  /**
   * @param {any[]} slow
   * @param {number} now
   * @param {any} hub
   */
  #showSlow(slow, now, hub) {
    const rows = slow.map(({ client, topics, since, behind }) => {
      const names = Array.isArray(topics) ? topics.join(", ") : String(topics ?? NOTHING)
      return [String(client ?? NOTHING), names, count(behind), duration(since == null ? null : now - since)]
    })
    this.#slow.show(rows)
    const late = hub.subscribers - hub.ready
    say(byId("slow-count", HTMLElement), late > 0 ? `${count(late)} of ${count(hub.subscribers)} subscribers` : "")
  }
}

/**
 * Take this page and other watchers off what the server counts: they are no clients of the hub.
 * @param {any} server
 * @param {any} watchers
 */
export function withoutWatchers(server, watchers) {
  const closings = Object.entries(server.stream_closings ?? {}).map(([why, times]) => [
    why,
    times - (watchers.stream_closings?.[why] ?? 0),
  ])
  // Each connection that idles ends by it, those over which a page was loaded too.
  const { keepalive_timeout: _, ...limits } = server.limits ?? {}
  const streams = server.streams == null ? server.streams : server.streams - (watchers.streams ?? 0)
  return { ...server, streams, limits, stream_closings: Object.fromEntries(closings) }
}

/**
 * The same of what access control counts: a page without a good token is refused its streams.
 * @param {any} access
 * @param {any} watchers
 */
function accessWithoutWatchers(access, watchers) {
  const { 401: unauthorized = 0, 403: forbidden = 0 } = watchers.refusals ?? {}
  return { ...access, unauthorized: access.unauthorized - unauthorized, forbidden: access.forbidden - forbidden }
}

/**
 * Everything that ended or was turned away, what hurt first.
 * @param {any} server
 * @param {any} hub
 * @param {any} access
 */
function endings(server, hub, access) {
  const { refused, refused_by_address, refused_streams } = server
  const ended = Object.entries(server.stream_closings)
  return [
    ...kind("dropped", [...ended.filter(([why]) => !(why in ENDS)), ["lagged", hub.ended?.lagged]]),
    ...kind("gap told", [["history no longer kept", hub.resets]]),
    ...kind("refused", [
      ["no room", refused],
      ["connections of one address", refused_by_address],
      ["streams of one address", refused_streams],
      ["no good token, 401", access.unauthorized],
      ["not allowed, 403", access.forbidden],
      ["publish rate, 429", access.rate_limited],
      ["streams of one subject, 429", access.too_many_streams],
      ...Object.entries(server.refusals ?? {}).map(([status, times]) => [`bad request, ${status}`, times]),
    ]),
    ...kind("at a limit", Object.entries(server.limits ?? {})),
    ...kind("ended", ended.filter(([why]) => why in ENDS)),
  ]
}

/**
 * @param {string} what
 * @param {any[]} counts pairs of a reason and how often
 */
function kind(what, counts) {
  return counts
    .filter(([, times]) => times > 0)
    .sort(([, one], [, other]) => other - one)
    .map(([why, times]) => [what, ENDS[why] ?? DROPS[why] ?? why, count(times)])
}

/** @param {any} history */
function storeLine({ durability = NOTHING, connected = true }) {
  return connected ? durability : `${durability}, away`
}

/**
 * @param {any} hub
 * @param {any} history
 */
function historyRows(hub, history) {
  return [
    ["Durability", history.durability ?? NOTHING],
    ["Events kept", count(history.events)],
    ["Size", bytes(history.bytes)],
    ["Topics", count(history.topics)],
    ["Positions", history.newest ? `${count(history.oldest)} to ${count(history.newest)}` : NOTHING],
    ["Removed", count(history.trimmed)],
    ["Waiting to be stored", count(hub.waiting)],
    ...(history.server
      ? [
          ["Server", history.server],
          ["Connections lost", count(history.reconnects)],
          ["Behind the server", count(history.behind)],
        ]
      : []),
    ...(hub.failure ? [["Failure", hub.failure]] : []),
  ]
}

/**
 * @param {any} node
 * @param {string | undefined} own
 */
function nodeRow(node, own) {
  const [slowest] = node.slow ?? []
  return [
    node.name === own ? `${node.name} (this)` : node.name,
    count(node.subscribers),
    count(node.subscribers - node.ready),
    `${duration(node.heard)} ago`,
    count(node.delivered),
    (node.topics ?? []).slice(0, NODE_TOPICS).map((/** @type {any} */ { topic }) => shortened(topic)).join(", "),
    slowest ? `${shortened(slowest.client)}, by ${count(slowest.behind)}` : "",
  ]
}

/** @param {string} name of which a row of several shows the beginning */
function shortened(name) {
  return name.length > LONGEST_NAME ? `${name.slice(0, LONGEST_NAME)}…` : name
}

/** @param {any} runs */
export function runRows(runs) {
  const by = (/** @type {string} */ what, /** @type {any} */ counts) =>
    Object.entries(counts ?? {}).map(([why, times]) => [`${what}: ${why}`, count(times)])
  return [
    ["Watched", count(runs.watched)],
    ["Unwatched", count(runs.unwatched)],
    ["Viewers", count(runs.viewers)],
    ["Started", count(runs.started)],
    ...by("Ended", runs.ended),
    ...by("At a limit", runs.limits),
  ]
}

/** @param {any} latencies */
function latencyRows(latencies) {
  return [
    ["Publish", latencies.publish],
    ["Sweep", latencies.sweep],
  ].map(([name, of]) => [name, latency(of?.p50), latency(of?.p90), latency(of?.p99), latency(of?.max)])
}
