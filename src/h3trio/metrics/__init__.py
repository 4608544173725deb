"""Metrics for Prometheus: the counts of a server and its hubs, read when somebody asks.

Needs prometheus-client, which the extras `metrics` and `hub` bring.
"""

from h3trio._facade import own as _own

from ._collector import Collector as Collector
from ._collector import Metrics as Metrics

_own(globals(), __name__)
del _own
