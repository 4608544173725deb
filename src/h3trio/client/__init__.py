"""`EventSource` for Trio: an event stream that comes back, as in browsers, and bounded.

Needs httpx2: `pip install '.[client]'`.
"""

from h3trio._facade import own as _own

from ._errors import ContentEncodingError as ContentEncodingError
from ._errors import ContentTypeError as ContentTypeError
from ._errors import EventLimitError as EventLimitError
from ._errors import EventSourceError as EventSourceError
from ._errors import LostError as LostError
from ._errors import RedirectError as RedirectError
from ._errors import RequestError as RequestError
from ._errors import SilentError as SilentError
from ._errors import StatusError as StatusError
from ._errors import StreamEndedError as StreamEndedError
from ._options import Limits as Limits
from ._source import EventSource as EventSource
from ._state import EventSourceStatistics as EventSourceStatistics
from ._state import State as State
from ._state import StateChange as StateChange

_own(globals(), __name__)
del _own
