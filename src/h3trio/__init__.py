"""Server-Sent Events on Trio: a server, a hub, and tools.

A connection is one cancel scope in one nursery. When the client leaves, its
handler is cancelled and has finished unwinding; when `serve` returns, no task
is left.
"""

from ._app import App as App
from ._close import CloseReason as CloseReason
from ._close import Closing as Closing
from ._cors import CORS as CORS
from ._doors import own as _own
from ._errors import HTTPError as HTTPError
from ._errors import ResponseStateError as ResponseStateError
from ._event import H3Event as H3Event
from ._http import Response as Response
from ._parser import EventTooLargeError as EventTooLargeError
from ._parser import SSEParser as SSEParser
from ._proxies import TrustedProxies as TrustedProxies
from ._security_headers import SecurityHeaders as SecurityHeaders
from ._server import Server as Server
from ._server import serve as serve
from ._settings import Settings as Settings
from ._sse import SSEEvent as SSEEvent
from ._statistics import ServerStatistics as ServerStatistics
from ._version import __version__ as __version__
from ._writer import SSEWriter as SSEWriter
from ._writer import WriterStatistics as WriterStatistics

_own(globals(), __name__)
del _own
