"""`TokenAuthenticator`: bearer tokens as an `Authenticator`.

A token that was found good is good until it ends or the keys change, so it is verified once:
publishers send the same one with each request. It is remembered by its hash, so that a dump of the
memory doesn't give away the tokens in use, and the time of a look-up says nothing of them.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, final

from .keys import JwksFile
from .token_sources import TokenSources, unauthorized
from .tokens import TokenError, TokenRules, verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from h3trio import H3Event

    from .grant import Grant
    from .keys import KeySet

MAX_REMEMBERED: Final = 1000
"""Good tokens that are remembered. Another one costs verifying it again."""


@final
class TokenAuthenticator:
    """Grants what the token of a request allows.

    Args:
        keys: a `KeySet`, or a `JwksFile` that is looked at again.
        rules: what tokens must be.
        token_sources: where they may be.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        keys: KeySet | JwksFile,
        *,
        rules: TokenRules | None = None,
        token_sources: TokenSources | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = keys
        self._rules = rules or TokenRules()
        self._token_sources = token_sources or TokenSources()
        self._clock = clock
        self._keys: KeySet | None = None
        self._good: OrderedDict[bytes, Grant] = OrderedDict()

    async def __call__(self, event: H3Event, /) -> Grant | None:
        """Return what a request's token allows, `None` if it has none.

        Raises:
            HTTPError: 401 if it isn't good, 400 if there are several, 403 if a cookie
                came where the header `Origin` doesn't show that no other site sent it.
        """
        token = self._token_sources.find(event)
        if token is None:
            return None
        keys = self._source
        return self.grant(token, await keys.current() if isinstance(keys, JwksFile) else keys)

    def grant(self, token: str, keys: KeySet) -> Grant:
        """Return what a token allows; HTTPError 401 if it isn't good."""
        if keys is not self._keys:
            self._keys = keys
            self._good.clear()
        now = self._clock()
        # The longest is cut: it is refused by its length, which the hash would hide.
        digest = hashlib.sha256(token[: self._rules.max_token_bytes + 1].encode()).digest()
        known = self._good.get(digest)
        if known is not None and (known.expires is None or known.expires > now):
            self._good.move_to_end(digest)
            return known
        try:
            granted = verify(token, keys, self._rules, now=now)
        except TokenError as exc:
            raise unauthorized(str(exc)) from None
        self._good[digest] = granted
        if len(self._good) > MAX_REMEMBERED:
            self._good.popitem(last=False)
        return granted
