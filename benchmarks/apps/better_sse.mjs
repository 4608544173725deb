// What Node's HTTP server with better-sse serves in the benchmarks: a channel, and own streams.
//
// By hand, in a folder with better-sse in node_modules: node better_sse.mjs PORT

import { createServer } from "node:http"
import { createRequire } from "node:module"

const { createChannel, createSession } = createRequire(`${process.cwd()}/`)("better-sse")

const PAD = "x".repeat(65)
const channel = createChannel()
// The data is text already; the default would make JSON of it.
const options = { serializer: (text) => text }

const text = (number) => `~t=0000000000000000000 n=${String(number).padStart(10, "0")}${PAD}`

async function publish(request, response) {
  const pieces = []
  for await (const piece of request) pieces.push(piece)
  channel.broadcast(Buffer.concat(pieces).toString())
  response.end()
}

async function burst(request, response, url) {
  const session = await createSession(request, response, options)
  const events = Number(url.searchParams.get("n"))
  for (let number = 0; number < events; number++) session.push(text(number))
  response.end()
}

createServer(async (request, response) => {
  const url = new URL(request.url, "http://localhost")
  if (request.method === "POST") await publish(request, response)
  else if (url.pathname.startsWith("/events/"))
    channel.register(await createSession(request, response, options))
  else if (url.pathname === "/burst") await burst(request, response, url)
  else response.end("hello\n")
}).listen(Number(process.argv[2]), "127.0.0.1", 1024)
