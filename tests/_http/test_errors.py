"""The public errors: what they hold, how they read in a log, and what they refuse to be."""

from __future__ import annotations

import copy
import pickle
from http import HTTPStatus

import pytest
from tables import table

from h3trio._http.errors import HTTPError, ResponseStateError, reason_phrase


def test_http_error_has_a_standard_detail() -> None:
    """Without a detail, an error has the standard phrase of its status, and no headers."""
    error = HTTPError(404)
    assert (error.status, error.detail, error.headers) == (404, "Not Found", {})
    assert str(error) == "404 Not Found"
    assert repr(error) == "HTTPError(404, 'Not Found')"


def test_http_error_keeps_what_it_is_given() -> None:
    """Status, detail and headers are kept, and the text of the error has status and detail."""
    error = HTTPError(HTTPStatus.TOO_MANY_REQUESTS, "slow down", headers={"Retry-After": "5"})
    assert (error.status, error.detail) == (429, "slow down")
    assert type(error.status) is int
    assert error.headers == {"Retry-After": "5"}
    assert str(error) == "429 Too Many Requests: slow down"
    assert repr(error) == "HTTPError(429, 'slow down')"


def test_http_error_copies_its_headers() -> None:
    """A mapping that changes later doesn't change the error."""
    headers = {"Allow": "GET"}
    error = HTTPError(405, headers=headers)
    headers["Allow"] = "POST"
    assert error.headers == {"Allow": "GET"}


@table("status", [-1, 0, 99, 200, 302, 399, 600, 4040])
def test_http_error_refuses_a_status_that_is_no_error(status: int) -> None:
    """Only 400 to 599 are errors."""
    with pytest.raises(ValueError, match=f"400 to 599, not {status}"):
        HTTPError(status)


@table("status", [400, 499, 500, 599])
def test_http_error_takes_every_error_status(status: int) -> None:
    """The whole range is allowed, with or without a phrase of its own."""
    assert HTTPError(status).detail == reason_phrase(status)


def test_http_error_of_a_group() -> None:
    """A group of nothing but HTTPErrors is one of them, the same in any order; others are none."""
    low, high = HTTPError(403, "b"), HTTPError(404, "a")
    for order in ([low, high], [high, low]):
        assert HTTPError.of(ExceptionGroup("", order)) is high
        assert HTTPError.of(BaseExceptionGroup("", [ExceptionGroup("", order), low])) is high
    assert HTTPError.of(low) is low
    assert HTTPError.of(KeyError()) is None
    assert HTTPError.of(ExceptionGroup("", [low, KeyError()])) is None
    assert HTTPError.of(BaseExceptionGroup("", [low, ExceptionGroup("", [KeyError()])])) is None


def test_http_error_survives_copy_and_pickle() -> None:
    """An error that crosses a process or is copied keeps all three of its fields."""
    error = HTTPError(503, "draining", headers={"Retry-After": "2"})
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - because we made the pickle ourselves
        assert (twin.status, twin.detail, twin.headers) == (503, "draining", error.headers)


@table(
    "status, phrase",
    [
        (200, "OK"),
        (404, "Not Found"),
        (299, "OK"),
        (499, "Bad Request"),
        (599, "Internal Server Error"),
    ],
)
def test_reason_phrase(status: int, phrase: str) -> None:
    """A status without a phrase of its own has the phrase of its class."""
    assert reason_phrase(status) == phrase


@table("status", [-404, 0, 99, 600])
def test_reason_phrase_refuses_what_is_no_status(status: int) -> None:
    """A number outside 1xx to 5xx has no phrase."""
    with pytest.raises(ValueError, match="not a valid HTTPStatus"):
        reason_phrase(status)


def test_response_state_error_is_a_runtime_error() -> None:
    """A response used out of order is a mistake in the program, as a RuntimeError is."""
    assert issubclass(ResponseStateError, RuntimeError)
