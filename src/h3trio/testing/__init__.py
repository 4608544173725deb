"""The test kit for programs that use h3trio: a client and a shared store in memory, and suites.

Nothing else imports it, and it needs nothing but h3trio itself.
"""

from h3trio._facade import own as _own

from ._check_history import check_history as check_history
from ._client import Client as Client
from ._client import Ending as Ending
from ._client import FramingError as FramingError
from ._client import connect as connect
from ._shared_memory import SharedMemoryHistory as SharedMemoryHistory
from ._shared_store import SharedMemoryStore as SharedMemoryStore

_own(globals(), __name__)
del _own
