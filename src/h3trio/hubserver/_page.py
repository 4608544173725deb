"""The small page at `/` that shows the stream."""

from typing import Final

PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>h3trio hub</title>
<link rel="icon" href="data:,">
<style>
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
  body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
  code, pre, li { font-family: ui-monospace, monospace; font-size: .9rem }
  pre { padding: .75rem 1rem; border: 1px solid #8886; border-radius: .4rem; overflow-x: auto }
  ol { list-style: none; padding: 0 } li { padding: .3rem 0; border-bottom: 1px solid #8883; overflow-wrap: anywhere }
  form { display: flex; flex-wrap: wrap; gap: .5rem } input { flex: 1 1 8rem; min-width: 0 }
  input, button { font: inherit; padding: .35rem .6rem }
  small { opacity: .7 } b { font-weight: 600 }
</style>
<h1>h3trio hub</h1>
<p id="state" role="status">connecting…</p>
<form id="publish">
  <input name="topic" value="news" aria-label="Topic" required>
  <input name="data" placeholder="data" aria-label="Data">
  <button>Publish</button>
</form>
<p>Or from a shell:</p>
<pre>curl -N <span class="base"></span>/events/news
curl -d hi <span class="base"></span>/events/news</pre>
<h2>Events</h2>
<ol id="events" aria-live="polite"></ol>
<script>
  for (const span of document.querySelectorAll(".base")) span.textContent = location.host
  const state = document.querySelector("#state"), list = document.querySelector("#events")
  const source = new EventSource("events")
  source.onopen = () => { state.textContent = "live: public events appear here" }
  source.onerror = () => {
    state.textContent = source.readyState === EventSource.CLOSED
      ? "the hub refused this stream" : "connection lost; the browser is reconnecting…"
  }
  source.onmessage = (message) => {
    const item = document.createElement("li"), id = document.createElement("small")
    id.textContent = ` ${message.lastEventId}`
    item.append(message.data, id)
    list.prepend(item)
    while (list.children.length > 100) list.lastChild.remove()
  }
  document.querySelector("#publish").onsubmit = async (submit) => {
    submit.preventDefault()
    const { topic, data } = submit.target.elements
    const path = topic.value.split("/").map(encodeURIComponent).join("/")
    const answer = await fetch(`events/${path}`, { method: "POST", body: data.value })
    if (!answer.ok) state.textContent = await answer.text()
    data.value = ""
  }
</script>
"""
