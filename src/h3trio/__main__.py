"""`python -m h3trio`."""

import sys

from ._cli import main

sys.exit(main())
