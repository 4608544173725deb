"""`Runs`: answers that outlive their connection, on any `Hub`."""

from h3trio._facade import own as _own

from ._run import Run as Run
from ._run import RunFailedError as RunFailedError
from ._runs import Runs as Runs
from ._settings import RunsSettings as RunsSettings
from ._state import RunResult as RunResult
from ._state import RunsStatistics as RunsStatistics
from ._state import RunState as RunState
from ._state import RunStatus as RunStatus
from ._state import join_texts as join_texts

_own(globals(), __name__)
del _own
