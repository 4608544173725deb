"""For programs that use h3trio, and their tests: a client in memory, and suites for interfaces.

Not imported by anything else; needs nothing but h3trio itself.
"""

from h3trio._doors import own as _own

from ._check_history import check_history as check_history
from ._client import Client as Client
from ._client import connect as connect
from ._link import Ending as Ending
from ._response import FramingError as FramingError

_own(globals(), __name__)
del _own
