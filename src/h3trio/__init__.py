"""Server-Sent Events on Trio: a server, a hub, and tools.

A connection is one cancel scope in one nursery. When the client leaves, its handler is cancelled;
when `serve` returns, no task is left.
"""

from ._app.app import App as App
from ._app.cors import CORS as CORS
from ._facade import own as _own
from ._http.closing import CloseReason as CloseReason
from ._http.closing import Closing as Closing
from ._http.errors import HTTPError as HTTPError
from ._http.errors import ResponseStateError as ResponseStateError
from ._http.response import Response as Response
from ._http.settings import Settings as Settings
from ._http.statistics import ServerStatistics as ServerStatistics
from ._server.event import H3Event as H3Event
from ._server.peers.trusted_proxies import TrustedProxies as TrustedProxies
from ._server.serve import Server as Server
from ._server.serve import serve as serve
from ._server.writer import SSEWriter as SSEWriter
from ._server.writer import StreamWriter as StreamWriter
from ._server.writer import WriterStatistics as WriterStatistics
from ._version import __version__ as __version__
from ._wire.event import SSEEvent as SSEEvent
from ._wire.parser import EventTooLargeError as EventTooLargeError
from ._wire.parser import SSEParser as SSEParser

_own(globals(), __name__)
del _own
