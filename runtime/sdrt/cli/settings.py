"""What holds for every command."""

from __future__ import annotations

import operator
from typing import Any

__all__ = ["COMPLETE", "CONTEXT"]

COMPLETE = "_SDRT_COMPLETE"
"""The environment variable with which a shell asks for completions. click reads it."""

CONTEXT: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": operator.methodcaller("replace", "_", "-"),
}
"""Options accept underscores and hyphens: `--guidance_scale` is `--guidance-scale`. Values stay as typed."""
