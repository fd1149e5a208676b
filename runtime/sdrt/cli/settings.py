"""What holds for every command, and how options are added to one."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

__all__ = ["COMPLETE", "CONTEXT", "Command", "Decorator", "together"]

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]

COMPLETE = "_SDRT_COMPLETE"
"""The environment variable with which a shell asks for completions. click reads it."""

CONTEXT: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": operator.methodcaller("replace", "_", "-"),
}
"""Options accept underscores and hyphens: `--guidance_scale` is `--guidance-scale`. Values stay as typed."""


def together(*options: Decorator) -> Decorator:
    """A decorator that adds these options to a command, in their order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
