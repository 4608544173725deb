"""The hub server: the app that `python -m h3trio serve` runs when given none.

Written only against h3trio's public names, so it is also the longest example.
"""

from ._app import create_app as create_app
from ._rights import Rights as Rights
