"""The dashboard's scripts without a browser: they fit together, and compute what they should.

They run in the Node.js that Playwright brings along, one process for each test.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import missing, require_corpus

import h3trio.hubserver
from h3trio.hubserver._monitoring.samples import WINDOW

if TYPE_CHECKING:
    from collections.abc import Sequence

STATIC = Path(h3trio.hubserver.__file__).parent / "static"

LINK = """
import vm from "node:vm"
import fs from "node:fs"
const modules = new Map()
const load = (name) => {
  if (!modules.has(name)) {
    const source = fs.readFileSync(`${given}/${name}`, "utf-8")
    modules.set(name, new vm.SourceTextModule(source, { identifier: name }))
  }
  return modules.get(name)
}
await load("dashboard.js").link((name) => load(name.slice(2)))
answer([...modules.keys()])
"""

PARSE = """
const { Parser } = await import(`${given.folder}/sse.js`)
answer(given.cases.flatMap(({ pieces, events, retry, last }, n) => {
  const read = (pieces) => {
    const parser = new Parser(), seen = []
    const decoder = new TextDecoder()
    for (const hex of pieces) {
      seen.push(...parser.feed(decoder.decode(Buffer.from(hex, "hex"), { stream: true })))
    }
    return JSON.stringify([seen, retry && parser.retry, last && parser.lastEventId])
  }
  const right = JSON.stringify([events, retry, last])
  const whole = pieces.join("")
  const cut = [pieces, [whole], whole.match(/../g) ?? []]
  return cut.flatMap((some) => (read(some) === right ? [] : [[n, read(some)]]))
}))
"""

FORMAT = """
const format = await import(`${given.folder}/format.js`)
const { niceTop } = await import(`${given.folder}/plot.js`)
const all = (name, ...values) => values.map((value) => format[name](value))
answer({
  count: all("count", 0, 999999, 1234567, undefined),
  rate: all("rate", 0, 0.25, 9.96, 1234.5, 234567, null),
  bytes: all("bytes", 0, 999, 1000, 16_600_000, 99_960, 2e15, 5e18, null),
  duration: all("duration", 0, 59.9, 61, 7260, 90000, -3, null),
  latency: all("latency", 0, 0.00042, 0.0042, 0.0999, 1.5, 12, null),
  some: [0, 1, 2000].map((value) => format.some(value, "event")),
  top: [0, 1, 1.1, 2, 24, 42, 501, 1000].map(niceTop),
})
"""

RUNS = """
const { runRows } = await import(`${given}/tables.js`)
const counts = { watched: 1, unwatched: 2, viewers: 3, started: 9 }
const runs = { ...counts, ended: { done: 4 }, limits: { max_runs: 5 } }
answer([runRows(runs), runRows({})])
"""

RATES = """
const { Rates, WINDOW } = await import(`${given}/rates.js`)
const rates = new Rates()
const add = (time, uptime, counts) => rates.add({ time, uptime, ...counts })
add(100, 10, { published: 5, delivered: 50, delivered_bytes: 500, subscribers: 3 })
add(102, 12, { published: 9, delivered: 90, delivered_bytes: 900, subscribers: 4 })
add(102, 12, { published: 9, delivered: 90, delivered_bytes: 900, subscribers: 4 })
add(104, 14, { published: 9 })
add(110, 1, { published: 2, delivered: 20, delivered_bytes: 200, subscribers: 1 })
const samples = rates.samples
add(110 + WINDOW, 1 + WINDOW, {})
const length = rates.samples.length

const hub = (time, uptime, published) => add(time, uptime, { published })
const shown = () => rates.samples.slice(-3).map(({ time, published }) => [time, published])
hub(1000, 300, 0)
hub(1001, 301, 5)
hub(1000.5, 302, 15)
const slewed = shown()
hub(-2600, 303, 20)
hub(-2599, 304, 25)
const setBack = shown()
hub(5000, 3, 100)
hub(5010, 8, 5000)
const restarted = shown()

rates.fill({ fields: ["time", "uptime", "published"], samples: [[5001, 4, 200], [5002, 5, 203]] })
hub(5004, 7, 209)
answer({ samples, length, slewed, setBack, restarted, filled: shown(), window: WINDOW })
"""

STREAMS = """
import { mock } from "node:test"
mock.timers.enable({ apis: ["setTimeout"] })
const { EventStream } = await import(`${given.folder}/stream.js`)
const { PATIENCE } = await import(`${given.folder}/events.js`)

const settle = async () => {
  for (let n = 0; n < 20; n++) await new Promise(setImmediate)
}
const pass = async (seconds, step = 0.1) => {
  await settle()
  for (let n = 0; n < seconds / step; n++) {
    mock.timers.tick(1000 * step)
    await settle()
  }
}

// What comes from the hub, at once, and the ways to go on.
let says, stays, asked, lines
globalThis.fetch = async (name, { signal }) => {
  asked[name]++
  if (asked.a + asked.b > 1000) process.exit(1)
  const body = new ReadableStream({
    start(line) {
      line.enqueue(new TextEncoder().encode(says))
      if (!stays) return line.close()
      lines[name] = line
      signal.addEventListener("abort", () => line.error(new DOMException("", "AbortError")))
    },
  })
  return new Response(body, { headers: { "Content-Type": "text/event-stream" } })
}

// Two streams, wired as those of the page.
const start = (names, patiences = {}) => {
  asked = { a: 0, b: 0 }
  lines = {}
  const streams = {}
  const onEvents = () => {}
  for (const [one, other] of ["ab", "ba"]) {
    const onState = () => streams[other].follow(streams[one])
    const patience = patiences[one] ?? 1e9
    streams[one] = new EventStream({ token: () => null, onEvents, onState, patience })
  }
  for (const name of names) streams[name].open(name)
  return streams
}
const names = ({ a, b }) => [a.state.name, b.state.name]
const end = ({ a, b }) => (a.stop(), b.stop())
const found = {}
"""

STREAMS_ID = r"""
says = "retry: 10\nid: é☃\ndata: x\n\n"
const answers = globalThis.fetch
const ids = []
globalThis.fetch = (name, options) => {
  const id = options.headers.get("Last-Event-ID")
  ids.push(id && [...id].map((byte) => byte.charCodeAt(0).toString(16).padStart(2, "0")).join(""))
  return answers(name, options)
}
const streams = start("a")
while (ids.length < 2) await pass(1)
end(streams)
answer(ids.slice(0, 2))
"""

STREAMS_HURRY = r"""
says = ": the hub is away\nretry: 1000\n\n"
let streams = start("ab")
await pass(10)
found.away = [{ ...asked }, names(streams)]
;[says, stays] = [":\nid: 1\n\n", true]
streams.a.tryNow()
await settle()
found.back = names(streams)
end(streams)

stays = false
streams = start("a")
await pass(1)
streams.b.open("b")
await pass(3.5)
found.brief = asked
end(streams)

says = "retry: 0\nid: 1\ndata: x\n\n"
streams = start("a")
await pass(5)
found.retry = asked
end(streams)
answer(found)
"""

STREAMS_SILENCE = r"""
;[says, stays] = ["id: 1\n\n", true]
let streams = start("ab", { a: 5000 })
await pass(6)
found.silent = [{ ...asked }, names(streams)]
await pass(2)
found.again = [{ ...asked }, names(streams)]
end(streams)

streams = start("b", { b: PATIENCE })
for (let n = 0; n < 10; n++) {
  await pass(120, 120)
  lines.b.enqueue(new TextEncoder().encode(":\n"))
}
found.heartbeat = asked
end(streams)
answer(found)
"""

PUBLISH = """
class Fake {
  value = ""
  dataset = {}
  textContent = ""
  addEventListener(name, act) {
    this[name] = act
  }
}
globalThis.HTMLElement = Fake
globalThis.HTMLFormElement = class extends Fake {}
const form = new HTMLFormElement()
const fields = { topic: new Fake(), data: new Fake(), type: new Fake(), id: new Fake() }
form.elements = { namedItem: (name) => fields[name] }
globalThis.document = { getElementById: (id) => (id === "publish" ? form : new Fake()) }
const keys = [], answers = [], urls = []
globalThis.fetch = (url, { headers }) => {
  urls.push(url)
  keys.push(headers.get("Idempotency-Key"))
  return new Promise((resolve, reject) => answers.push({ resolve, reject }))
}
const { Publisher } = await import(`${given}/publish.js`)
new Publisher({ value: null })

const settle = () => new Promise(setImmediate)
const publish = async (data) => {
  fields.data.value = data
  form.submit({ preventDefault() {} })
  await settle()
}
const store = async (n) => {
  answers[n].resolve(new Response(`{"id": "${n}"}`))
  await settle()
}
const typed = []
fields.topic.value = "news"
fields.id.value = "mine"
await publish("first")
fields.data.value = "typed on"
await store(0)
typed.push([fields.data.value, fields.id.value])
await publish("second")
await publish("third")
await store(1)
answers[2].reject(new TypeError())
await settle()
typed.push([fields.data.value, fields.id.value])
await publish("third")
await store(3)
typed.push([fields.data.value, fields.id.value])
await publish("third")
fields.topic.value = "a//../é +&#?%2F"
await publish("last")
answer([typed, keys.map((key) => keys.indexOf(key)), urls.at(-1)])
"""


def run_node(script: str, given: object, *options: str) -> Any:  # noqa: ANN401 - JSON
    """Run a script that sees `given` and calls `answer`; return what it answered."""
    try:
        import playwright  # noqa: PLC0415 - may be missing
    except ImportError:
        missing("playwright, and Node.js with it, is not installed")
    node = Path(playwright.__file__).parent / "driver" / "node"
    frame = (
        'import { readFileSync } from "node:fs"\n'
        'const given = JSON.parse(readFileSync(0, "utf-8"))\n'
        "const answer = (value) => process.stdout.write(JSON.stringify(value))\n"
    )
    argv: Sequence[str] = [str(node), "--no-warnings", *options, "--input-type=module", "--eval"]
    done = subprocess.run(
        [*argv, frame + script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_scripts_parse_and_fit_together() -> None:
    """Each script parses, and offers every name that another one imports from it."""
    linked = run_node(LINK, str(STATIC), "--experimental-vm-modules")
    assert sorted(linked) == sorted(path.name for path in STATIC.glob("*.js"))


def test_the_parser_reads_the_corpus() -> None:
    """The page reads event streams as the standard's tests have it, whole and byte by byte."""
    cases = []
    for case in json.loads(require_corpus("sse_corpus.json").read_text(encoding="utf-8"))["cases"]:
        whole = bytes.fromhex(case["hex"]) if "hex" in case else case["text"].encode()
        pieces = [piece.encode().hex() for piece in case.get("chunks", ())] or [whole.hex()]
        events = [
            {"type": event["type"], "data": event["data"], "id": event["lastEventId"]}
            for event in case["events"]
        ]
        retry, last = case.get("retry"), case.get("last_event_id")
        # 50,000 bytes one by one are read by others.
        if len(whole) < 5000:
            cases.append({"pieces": pieces, "events": events, "retry": retry, "last": last})
    assert len(cases) > 100
    assert run_node(PARSE, {"folder": str(STATIC), "cases": cases}) == []


def test_numbers() -> None:
    """Numbers are short and honest."""
    answer = run_node(FORMAT, {"folder": str(STATIC)})
    nothing = answer["count"].pop()
    assert [answer[name].pop() for name in ("rate", "bytes", "duration", "latency")] == 4 * [
        nothing
    ]
    assert answer == {
        "count": ["0", "999,999", "1.23M"],
        "rate": ["0", "0.3", "10", "1,235", "235K"],
        "bytes": ["0 B", "999 B", "1 kB", "16.6 MB", "100 kB", "2 PB", "5,000 PB"],
        "duration": ["0 s", "59 s", "1 min 1 s", "2 h 1 min", "1 d 1 h", "0 s"],
        "latency": ["0 µs", "420 µs", "4.2 ms", "100 ms", "1.5 s", "12 s"],
        "some": ["0 events", "1 event", "2,000 events"],
        "top": [1, 1, 2, 2, 30, 50, 1000, 1000],
    }


def test_runs_are_a_table() -> None:
    """Runs are told by who watches, by how they ended, and by the limits that were met."""
    some, none = run_node(RUNS, str(STATIC))
    assert some == [
        ["Watched", "1"],
        ["Unwatched", "2"],
        ["Viewers", "3"],
        ["Started", "9"],
        ["Ended: done", "4"],
        ["At a limit: max_runs", "5"],
    ]
    assert len(none) == 4


def test_rates_of_totals() -> None:
    """A rate is what a total grew by in the hub's time; a restart or a set clock is a gap."""
    found = run_node(RATES, str(STATIC))
    gap = {"published": None, "delivered": None, "delivered_bytes": None}
    rates = {"delivered": 20, "delivered_bytes": 200}
    assert found == {
        "samples": [
            {"time": 100, "subscribers": 3, **gap},
            {"time": 102, "subscribers": 4, "published": 2, **rates},
            {"time": 104, "subscribers": None, **gap, "published": 0},
            {"time": 110, "subscribers": 1, **gap},
        ],
        "length": 2,
        "slewed": [[1000, None], [1000.5, 10]],
        "setBack": [[-2600, None], [-2599, 5]],
        "restarted": [[5000, None], [5010, None]],
        # What the hub kept takes the place of what the page had of that time.
        "filled": [[5001, None], [5002, 3], [5004, 3]],
        "window": WINDOW,
    }


def test_streams_dont_hurry_each_other_on() -> None:
    """A proxy that answers for an absent hub, or a `retry: 0`, makes no page ask in a hurry."""
    found = run_node(STREAMS + STREAMS_HURRY, {"folder": str(STATIC)})
    assert found == {
        # After 1, 2 and 4 s; the stand-in's comment and `retry:` don't count as the hub.
        "away": [{"a": 4, "b": 4}, ["waiting", "waiting"]],
        "back": ["open", "open"],
        # Each after its own 2 s, though they find the hub in turns.
        "brief": {"a": 3, "b": 2},
        "retry": {"a": 11, "b": 0},
    }


def test_silence_is_of_the_connection_or_a_long_heartbeat() -> None:
    """One stream's silence renews the other's connection; a heartbeat of minutes is waited for."""
    found = run_node(STREAMS + STREAMS_SILENCE, {"folder": str(STATIC)})
    assert found == {
        "silent": [{"a": 1, "b": 1}, ["waiting", "open"]],
        "again": [{"a": 2, "b": 2}, ["open", "open"]],
        "heartbeat": {"a": 0, "b": 1},
    }


def test_an_id_is_sent_in_utf_8() -> None:
    """What a publisher chose may be of any script, and a header's value is bytes for a page."""
    assert run_node(STREAMS + STREAMS_ID, {"folder": str(STATIC)}) == [None, "é☃".encode().hex()]


def test_an_answer_is_of_its_own_publish() -> None:
    """An answer clears what was sent alone, and leaves the key of a later publish in force."""
    typed, keys, url = run_node(PUBLISH, str(STATIC))
    assert typed == [["typed on", ""], ["third", ""], ["", ""]]
    # The third publish is the one of an earlier key; once stored, the same text is another one.
    assert keys == [0, 1, 2, 2, 4, 5]
    # A topic is sent in the query, where nothing on the way rewrites it.
    assert url == "events?topic=a%2F%2F..%2F%C3%A9+%2B%26%23%3F%252F"
