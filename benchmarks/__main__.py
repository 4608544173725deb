"""`python -m benchmarks NAME…` from the root of the repository; `python benchmarks` is the same."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    # Run as a folder: its parent is what the modules are named from.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.cli import main

sys.exit(main())
