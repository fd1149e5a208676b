"""A click group that imports commands when they are used, and turns errors into a message and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from sdrt.cli.exit_codes import Boundary, State
from sdrt.cli.process import flush, printable, stoppable
from sdrt.cli.settings import COMPLETE

__all__ = ["LazyGroup", "debug_option", "force_option"]


class LazyGroup(click.Group):
    """A group that imports a command when it is used.

    `commands_table` maps the name of each command to its module in `sdrt.cli` and its line of help.
    """

    def __init__(self, *args: Any, commands_table: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands_table = commands_table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table, which is the order in which a newcomer needs them."""
        return list(self.commands_table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in self.commands_table:
            return None
        module = importlib.import_module(f"{__package__}.{self.commands_table[cmd_name][0]}")
        # `help` is a function of Python.
        command = getattr(module, "help_command" if cmd_name == "help" else cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that `args` start with, and note it. The error for an unknown name lists the known ones."""
        is_unknown = args and args[0] not in self.commands_table and not args[0].startswith("-")
        if is_unknown and not ctx.resilient_parsing:
            from sdrt.cli.unknown import unknown_command

            raise click.UsageError(unknown_command(args[0], self.commands_table), ctx)
        name, command, rest = super().resolve_command(ctx, args)
        ctx.ensure_object(State).command = command
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.commands_table.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """Complete the names of commands without importing any."""
        names = [name for name in self.commands_table if name.startswith(incomplete)]
        options = super(click.Group, self).shell_complete(ctx, incomplete)
        return [*(CompletionItem(name, help=self.commands_table[name][1]) for name in names), *options]

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run the command, turn any exception into a line on stderr, and exit with the documented code."""
        extra["standalone_mode"] = False
        state = State()
        with stoppable(), Boundary(state):
            printable()
            if COMPLETE in os.environ:
                from sdrt.cli.completion import register

                register()
            try:
                code = super().main(*args, **extra, obj=state)
            finally:
                flush()
        sys.exit(code if isinstance(code, int) else 0)


def _note_debug(context: click.Context, _: click.Parameter, given: bool) -> None:
    context.ensure_object(State).debug |= given


debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_note_debug,
    help="Show the traceback of an error.",
)
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite existing files.")
