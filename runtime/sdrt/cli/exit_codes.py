"""Turn an exception into one line on stderr and an exit code."""

from __future__ import annotations

import errno
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

import click

from sdrt.cli.echo import echo_error
from sdrt.cli.process import ignore_signals
from sdrt.common.visible import visible

__all__ = ["Boundary", "State"]

INTERRUPTED = 130  # 128 + SIGINT, as shells count
OUT_OF_MEMORY = 5
_LONGEST = 2000
"""Characters of a message. A name in it can have any length."""
_REPORT = "run it again with --debug and report the traceback with the output of `sdrt doctor`"


@dataclass
class State:
    """What the commands set for the `Boundary` around them."""

    debug: bool = False
    command: click.Command | None = None
    """The command that runs, whose options messages name."""


class Boundary:
    """Context manager around the program. It lets only `SystemExit` out."""

    def __init__(self, state: State) -> None:
        self.state = state

    def __enter__(self) -> Boundary:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ignore_signals()
        if error is None or isinstance(error, SystemExit):
            return
        from sdrt.common.interrupt import asked

        # A native module that a signal interrupts during import raises another error, without a cause.
        if isinstance(signal := asked(), SystemExit):
            raise signal
        error = signal or error
        code, line = describe(error, self.state.command)
        if self.state.debug:
            lines = traceback.format_exception(kind, error, trace)
            click.echo(visible("".join(lines), lines=True), err=True, nl=False)
        if line:
            with suppress(OSError):  # nobody reads stderr: the exit code still tells
                echo_error(f"error: {line}")
        sys.exit(code)


def describe(error: BaseException, command: click.Command | None = None) -> tuple[int, str]:
    """Exit code and message of an exception. The message is one line, or empty if there is nothing to say.

    It names the options of `command` in place of arguments of the Python API.
    """
    from sdrt.cli.spellings import in_options
    from sdrt.common.interrupt import was_interrupted
    from sdrt.common.limits import can_start_thread, is_of_memory
    from sdrt.errors import SdrtError

    if isinstance(error, click.Abort) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, click.Abort) or was_interrupted(error):
        # When OpenBLAS cannot start its threads, it sends this process the signal of Ctrl-C.
        return (INTERRUPTED, "interrupted") if can_start_thread() else (OUT_OF_MEMORY, _out_of_threads())
    if isinstance(error, click.ClickException):
        return error.exit_code, _one_line(_usage(error))
    if isinstance(error, SdrtError):
        return error.exit_code, _one_line(in_options(error, command))
    if is_of_memory(error):
        return OUT_OF_MEMORY, _out_of_memory()
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        return 1, ""
    if isinstance(error, OSError) and error.strerror is not None:
        # An error without a file name is about stdout; all other files are opened by name.
        return 1, _one_line(f"{error.filename or 'standard output'}: {error.strerror}")
    return 1, _one_line(f"internal error: {type(error).__name__}: {error}; {_REPORT}")


def _out_of_memory() -> str:
    from sdrt.common.limits import advice_on_limits

    return f"out of memory: {advice_on_limits()}; `sdrt doctor` says what fits"


def _out_of_threads() -> str:
    from sdrt.common.limits import memory_limit

    limit = memory_limit()
    remedy = (
        f"raise {limit}" if limit else "raise the limit on processes (ulimit -u, or that of the container)"
    )
    return f"out of memory: this process cannot start threads: {remedy}"


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption):
        from sdrt.cli.unknown import explain_option

        message = explain_option(error)
    else:
        message = error.format_message()
    return f"{message.rstrip('.')}; see `{context.command_path} --help`" if context else message


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
