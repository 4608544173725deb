"""`Hub`: publish and subscribe, with one log, many feeds, and no gap between replay and live."""

from h3trio._facade import own as _own

from ._fanout.channel import EventChannel as EventChannel
from ._fanout.latency import LatencyStatistics as LatencyStatistics
from ._fanout.subscription import EndReason as EndReason
from ._fanout.subscription import Policy as Policy
from ._fanout.subscription import Start as Start
from ._fanout.subscription import Subscription as Subscription
from ._history.errors import HistoryError as HistoryError
from ._history.errors import HistoryFullError as HistoryFullError
from ._history.errors import KeyReusedError as KeyReusedError
from ._history.errors import OutcomeUnknownError as OutcomeUnknownError
from ._history.errors import OverloadedError as OverloadedError
from ._history.errors import PinnedFullError as PinnedFullError
from ._history.errors import TopicClosedError as TopicClosedError
from ._history.gaps import Mark as Mark
from ._history.history import Durability as Durability
from ._history.history import History as History
from ._history.history import HistoryStatistics as HistoryStatistics
from ._history.memory import MemoryHistory as MemoryHistory
from ._history.nodes import NodeAnswers as NodeAnswers
from ._history.nodes import NodeNote as NodeNote
from ._history.nodes import Nodes as Nodes
from ._history.recent import Recent as Recent
from ._history.recent import read_recent as read_recent
from ._history.record import Appended as Appended
from ._history.record import Page as Page
from ._history.record import Record as Record
from ._history.record import Update as Update
from ._history.selection import Selection as Selection
from ._history.selection import TopicMatcher as TopicMatcher
from ._hub import Hub as Hub
from ._nodes import Kicked as Kicked
from ._redis.history import RedisHistory as RedisHistory
from ._settings import HubSettings as HubSettings
from ._snapshots import HubStatistics as HubStatistics
from ._snapshots import NodeStatistics as NodeStatistics
from ._snapshots import SlowStatistics as SlowStatistics
from ._snapshots import TopicStatistics as TopicStatistics
from ._sqlite.history import SQLiteHistory as SQLiteHistory

_own(globals(), __name__)
del _own
