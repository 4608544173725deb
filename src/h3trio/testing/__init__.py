"""For programs that use h3trio, and their tests: suites for what they implement."""

from ._check_history import check_history as check_history

check_history.__module__ = __name__
