"""The public errors of HTTP: `HTTPError` and `ResponseStateError`.

They are few: Trio's own (`trio.ClosedResourceError`, `trio.BrokenResourceError`,
`trio.BusyResourceError`, `trio.WouldBlock`) are used where they fit, and a bad argument is a
`ValueError` or a `TypeError` at the call that passed it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast, final

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOWEST_ERROR: Final = 400
_HIGHEST_ERROR: Final = 599


def reason_phrase(status: int) -> str:
    """Return the standard phrase of a status code, such as `"Not Found"` for 404.

    A code without a phrase of its own gets that of its class (499 → `"Bad Request"`), as RFC 9110
    §15 has a client read it.

    Raises:
        ValueError: a number that is in none of the classes 1xx to 5xx.
    """
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return HTTPStatus(status // 100 * 100).phrase


@final
class HTTPError(Exception):
    """The request ends with this status.

    Raised by handlers and middleware, and by h3trio's own request helpers. At fault is the client
    for 400 to 499, the server for 500 to 599.

    Raised before the first byte of the response it gives the status; raised later it ends the
    stream without the final chunk. `detail` is sent to the client as plain text: no secrets in it.
    It defaults to the standard reason phrase. `headers` are added to the response (`Retry-After`,
    `WWW-Authenticate`); they are checked when the response is made.

    Raises:
        ValueError: a status outside 400 to 599: success is returned, not raised.
    """

    def __init__(
        self, status: int, detail: str | None = None, *, headers: Mapping[str, str] | None = None
    ) -> None:
        if not _LOWEST_ERROR <= status <= _HIGHEST_ERROR:
            raise ValueError(f"HTTPError takes a status from 400 to 599, not {status!r}")
        self.status: Final = int(status)
        """From 400 to 599."""
        self.detail: Final = reason_phrase(self.status) if detail is None else detail
        """The text that the client gets."""
        self.headers: Final = dict(headers or {})
        """Fields that are added to the response's head."""
        super().__init__(self.status, self.detail)

    @staticmethod
    def of(error: BaseException) -> HTTPError | None:
        """Return the `HTTPError` that an error is: itself, or one of a group of nothing else.

        Nurseries raise groups. Of several it is the one with the highest status, so that what the
        server lacks isn't told as a mistake of the client's; then the last one by its text and
        headers. So the same errors give the same answer, in whatever order tasks ran. The server
        does this for handlers, and `App` for what `await next()` raises.
        """
        found: list[HTTPError] = []
        waiting = [error]
        while waiting:
            error = waiting.pop()
            if isinstance(error, BaseExceptionGroup):
                waiting += cast("BaseExceptionGroup[BaseException]", error).exceptions
            elif isinstance(error, HTTPError):
                found.append(error)
            else:
                return None
        return max(found, key=_rank)

    def __str__(self) -> str:
        """Return `404 Not Found`, or `404 Not Found: detail` where a detail was given."""
        reason = reason_phrase(self.status)
        head = f"{self.status} {reason}"
        return head if self.detail == reason else f"{head}: {self.detail}"

    def __repr__(self) -> str:
        """Return the call that makes this error, without the headers: they may hold secrets."""
        return f"HTTPError({self.status}, {self.detail!r})"


def _rank(error: HTTPError) -> tuple[int, str, list[str]]:
    return error.status, str(error.detail), sorted(map(repr, error.headers.items()))


@final
class ResponseStateError(RuntimeError):
    """The response is past the point where this can be done.

    At fault is the handler, or middleware. Raised when a stream is started a second time or after a
    response, and when a header or the status is changed after the response head went out.
    """
