"""The recipe of the embedded model `shapes`, and the model judged by it."""

from __future__ import annotations

import importlib.util

# The recogniser needs the recipe's extra.
collect_ignore_glob = [] if importlib.util.find_spec("scipy") else ["test_*.py"]
