"""`EventSourceError` and its kinds: every error of the client, on one page.

Strategy: one base class, and below it two kinds. A `LostError` says that another attempt may help,
so the client makes one by itself and such an error is seen only where reconnecting is off. All
others are final (WHATWG HTML, 9.2.3, "fail the connection"). The texts are lines for people.
"""

from __future__ import annotations

import contextlib
from http import HTTPStatus
from typing import TYPE_CHECKING, final
from urllib.parse import urlsplit

from h3trio._nursery import members

if TYPE_CHECKING:
    from collections.abc import Mapping


class EventSourceError(Exception):
    """The stream can't be had, or can't be read further."""


class LostError(EventSourceError):
    """There is no answer, or no more of it: another attempt may help.

    Attributes:
        connected: whether there was a connection, so that the server may have seen the request.
    """

    def __init__(self, message: str, *, connected: bool = True) -> None:
        super().__init__(message)
        self.connected = connected


@final
class SilentError(LostError):
    """Nothing came for `read_timeout` seconds, not even a comment."""


@final
class DamagedError(LostError):
    """The bytes of the stream aren't in the compression that the answer claims."""


@final
class StreamEndedError(LostError):
    """The server ended the stream in an orderly way: clients are meant to come back."""


@final
class StatusError(EventSourceError):
    """The server answered with a status that is no stream.

    Attributes:
        status: the status.
        headers: the header fields of the answer, by name in lower case.
        text: the start of its body, at most 64 KiB, to be shown to people.
        retry_after: seconds that the server asked to wait, `None` if it didn't.
    """

    def __init__(
        self,
        status: int,
        *,
        headers: Mapping[str, str] | None = None,
        text: str = "",
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.headers: Mapping[str, str] = headers or {}
        self.text = text
        self.retry_after = retry_after
        location = self.headers.get("location", "")
        said = text.strip() or (f"it points to {location}" if location else "")
        if self.headers.get("content-type", "").lower().startswith("text/html"):
            said = ""  # a page, such as a proxy's own: nobody reads HTML in a line
            with contextlib.suppress(ValueError):
                said = HTTPStatus(status).phrase
        super().__init__(f"the server answered {status}{f': {said}' if said else ''}")


@final
class ContentTypeError(EventSourceError):
    """The server answered 200 with something that is no event stream.

    Attributes:
        content_type: the value of its `Content-Type`, `""` if there was none.
    """

    def __init__(self, content_type: str) -> None:
        found = content_type or "nothing said"
        super().__init__(f"the server answered 200, but no text/event-stream: {found}")
        self.content_type = content_type


@final
class ContentEncodingError(EventSourceError):
    """The stream is compressed in a way that wasn't asked for and isn't known."""


@final
class RedirectError(EventSourceError):
    """There were more redirects than `max_redirects`, or one leads where it can't be followed.

    That is an address at which nothing can be asked, or another origin for a request with a body.
    """


@final
class EventLimitError(EventSourceError):
    """An event is above `max_event_bytes`. To come back would bring the same one again."""


@final
class RequestError(EventSourceError):
    """The request can't be made: its URL, a header field or a variable of the environment is bad.

    Of `SSL_CERT_FILE`, `SSL_CERT_DIR`, `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` the
    text names the bad one.
    """


def reason_of(error: BaseException) -> str:
    """Say why a connection failed: what the system said, if that is behind it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.rpartition("): ")[2]  # Trio puts the address before it
        cause = next(iter(members(cause)), cause.__cause__ or cause.__context__)
    return str(error) or type(error).__name__


def without_secret(url: str) -> str:
    """Return a URL as it may be shown: without the name and password of its user."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
