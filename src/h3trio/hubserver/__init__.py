"""The hub server: the app that `python -m h3trio serve` runs when given none.

Written only against h3trio's public names, so it is also the longest example.
"""

from ._access import Access as Access
from ._access import AccessStatistics as AccessStatistics
from ._app import create_app as create_app
from ._auth import TokenAuthenticator as TokenAuthenticator
from ._browser import hub_cors as hub_cors
from ._credentials import COOKIE_NAME as COOKIE_NAME
from ._credentials import Carriers as Carriers
from ._grant import Authenticator as Authenticator
from ._grant import Grant as Grant
from ._grant import selection_of as selection_of
from ._keys import ALGORITHMS as ALGORITHMS
from ._keys import JwksFile as JwksFile
from ._keys import Key as Key
from ._keys import KeySet as KeySet
from ._keys import parse_jwks as parse_jwks
from ._keys import parse_key as parse_key
from ._keys import parse_signing_key as parse_signing_key
from ._keys import read_key_file as read_key_file
from ._keys import require_jwt as require_jwt
from ._limits import Limits as Limits
from ._rate import Rate as Rate
from ._rights import Rights as Rights
from ._rights import is_loopback as is_loopback
from ._store import Retention as Retention
from ._store import describe as describe
from ._store import make_history as make_history
from ._tokens import TokenRules as TokenRules
