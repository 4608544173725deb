"""`python -m h3trio`."""

import sys

from ._cli.main import main

sys.exit(main())
