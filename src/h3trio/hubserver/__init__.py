"""The hub server: the app that `python -m h3trio serve` runs when given none.

Written only against h3trio's public names, so it is also the longest example.
"""

from ._app import create_app as create_app
from ._browser import hub_cors as hub_cors
from ._rights import Rights as Rights
from ._rights import is_loopback as is_loopback
from ._store import Retention as Retention
from ._store import describe as describe
from ._store import make_history as make_history
