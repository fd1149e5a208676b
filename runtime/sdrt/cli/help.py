"""`sdrt help`: the help of a command."""

from __future__ import annotations

import click

from sdrt.cli.completers import commands
from sdrt.cli.echo import echo
from sdrt.cli.settings import CONTEXT
from sdrt.cli.unknown import unknown_command

__all__ = ["help_command"]


@click.command("help", context_settings=CONTEXT)
@click.argument("command", required=False, shell_complete=commands)
@click.pass_context
def help_command(context: click.Context, command: str | None) -> None:
    """Show the help of a command, as `sdrt COMMAND --help` does. Without COMMAND, list the commands."""
    top = context.find_root()
    assert isinstance(top.command, click.Group)
    if command is None:
        echo(top.get_help())
        return
    found = top.command.get_command(top, command)
    if found is None:
        raise click.UsageError(unknown_command(command, top.command.list_commands(top)), top)
    with click.Context(found, info_name=command, parent=top) as shown:
        echo(found.get_help(shown))
