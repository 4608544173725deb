"""The hub server: the app that `python -m h3trio serve` runs when given none.

Written only against h3trio's public names, so it is also the longest example.
"""

from ._access.access import AccessControl as AccessControl
from ._access.access import AccessStatistics as AccessStatistics
from ._access.anonymous import AnonymousAccess as AnonymousAccess
from ._access.bearer import TokenAuthenticator as TokenAuthenticator
from ._access.grant import Authenticator as Authenticator
from ._access.grant import Grant as Grant
from ._access.grant import selection_of as selection_of
from ._access.hosts import is_loopback as is_loopback
from ._access.keys import ALGORITHMS as ALGORITHMS
from ._access.keys import JwksFile as JwksFile
from ._access.keys import Key as Key
from ._access.keys import KeySet as KeySet
from ._access.keys import parse_jwks as parse_jwks
from ._access.keys import parse_key as parse_key
from ._access.keys import parse_signing_key as parse_signing_key
from ._access.keys import read_key_file as read_key_file
from ._access.keys import require_jwt as require_jwt
from ._access.limits import Limits as Limits
from ._access.rate_limit import Rate as Rate
from ._access.token_sources import COOKIE_NAME as COOKIE_NAME
from ._access.token_sources import TokenSources as TokenSources
from ._access.tokens import TokenRules as TokenRules
from ._app import create_app as create_app
from ._browser import hub_cors as hub_cors
from ._store import Retention as Retention
from ._store import describe as describe
from ._store import make_history as make_history
