"""Publish and subscribe: one log, many feeds, no gap between replay and live."""

from h3trio._doors import own as _own

from ._channel import EventChannel as EventChannel
from ._errors import HistoryError as HistoryError
from ._errors import HistoryFullError as HistoryFullError
from ._errors import OutcomeUnknownError as OutcomeUnknownError
from ._errors import OverloadedError as OverloadedError
from ._history import Durability as Durability
from ._history import History as History
from ._history import HistoryStatistics as HistoryStatistics
from ._hub import Hub as Hub
from ._latency import LatencyStatistics as LatencyStatistics
from ._memory import MemoryHistory as MemoryHistory
from ._record import Appended as Appended
from ._record import Page as Page
from ._record import Record as Record
from ._record import Update as Update
from ._selection import Selection as Selection
from ._selection import TopicMatcher as TopicMatcher
from ._settings import HubSettings as HubSettings
from ._sqlite import SQLiteHistory as SQLiteHistory
from ._statistics import HubStatistics as HubStatistics
from ._statistics import TopicStatistics as TopicStatistics
from ._subscriber import EndReason as EndReason
from ._subscriber import Policy as Policy
from ._subscriber import Subscription as Subscription

_own(globals(), __name__)
del _own
