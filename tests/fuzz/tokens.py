"""The words of HTTP and of event streams, from which inputs are put together."""

from __future__ import annotations

import json
from typing import Final

from tools import CORPORA

METHODS: Final = [b"GET ", b"POST ", b"HEAD ", b"OPTIONS ", b"DELETE ", b"CONNECT ", b"get "]
PATHS: Final = [
    *(b"/", b"/echo", b"/pieces", b"/stream", b"/json", b"/form", b"/late/x", b"*", b"/none"),
    *(b"/errors/404", b"/errors/503", b"/errors/x", b"http://test/echo", b"/%2F%zz", b"/?a=1&b"),
    *(b"?last_event_id=7", b"?event=e&id=i&retry=9", b"?retry=x", b"%00", b"%ff", b"#"),
]
VERSIONS: Final = [b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/2.0\r\n", b" HTTP/1.1\n", b"\r\n"]
FIELDS: Final = [
    b"Host: test\r\n",
    b"Host: localhost\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"Accept: text/event-stream\r\n",
    b"Last-Event-ID: 7\r\n",
    b"Last-Event-ID: \xff\r\n",
    b"Origin: http://evil\r\n",
    b"Forwarded: for=1\r\n",
    b"Cookie: a=1; b\r\n",
    b"Content-Type: text/event-stream\r\n",
    b"Content-Type: application/x-www-form-urlencoded\r\n",
    b"Idempotency-Key: k\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 50\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"X: " + b"x" * 290 + b"\r\n",
    b" folded\r\n",
    b"no colon\r\n",
    b": no name\r\n",
]
BODIES: Final = [
    *(b"\r\n", b"\r\n\r\n", b"hello", b"0\r\n\r\n", b"5\r\nhello\r\n", b"5;x=y\r\nhello\r\n"),
    *(b"ffffffffffffffff\r\n", b"-1\r\n", b"0\r\nT: t\r\n\r\n", b"5\nhello\n", b"x" * 70),
    *(b'{"a": 1}', b"[NaN]", b'"\\ud800"', b"1e999", b"[" * 200, b"a=1&b=%ff&c", b"&" * 30),
    *(
        b"data: x\n\n",
        b"event: e\r",
        b"id: \0\n",
        b"retry: 5\r\n",
        b":\n",
        b"\xef\xbb\xbf",
        b"data",
    ),
    *(b"\0", b"\xff", b"\n", b"\n\n", b" ", b"\x16\x03\x01"),
]
ALL: Final = [*METHODS, *PATHS, *VERSIONS, *FIELDS, *BODIES]

REQUESTS: Final = [
    b"GET / HTTP/1.1\r\nHost: test\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST /pieces HTTP/1.1\r\nHost: test\r\nContent-Length: 50\r\n\r\n" + b"x" * 50,
    b"POST /stream HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n" + b"x" * 90,
    b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n",
    b"HEAD /stream HTTP/1.1\r\nHost: test\r\n\r\n",
    b"GET /stream HTTP/1.0\r\n\r\n",
    b"GET /late/x HTTP/1.1\r\nHost: test\r\n\r\n",
    b"POST /json HTTP/1.1\r\nHost: test\r\nContent-Length: 8\r\n\r\n" + b'{"a": 1}',
    b"POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
]


def seeds() -> list[bytes]:
    """Return whole inputs to begin with: ours, and those of the corpora where they are."""
    found = list(REQUESTS)
    for name in ("http1_llhttp.json", "http1_gunicorn.json"):
        path = CORPORA / name
        if path.is_file():
            cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
            found += [case["send"].encode("latin-1", "replace") for case in cases]
    path = CORPORA / "sse_corpus.json"
    if path.is_file():
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
        found += [
            bytes.fromhex(case["hex"]) if "hex" in case else case["text"].encode() for case in cases
        ]
    return found
