"""Grouped help, for commands with more options than fit on a screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

__all__ = ["GroupedCommand"]

_OTHER_OPTIONS = "Output and messages"


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings.

    `groups` maps each heading to names of parameters, in the order of the help. All other options come last, under
    "Output and messages".
    """

    def __init__(self, *args: Any, groups: Mapping[str, tuple[str, ...]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group."""
        records = {
            parameter.name: record
            for parameter in self.get_params(ctx)
            # Some versions of click also have a record for arguments, which the usage line shows already.
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None
        }
        for heading, names in self.groups.items():
            if rows := [records.pop(name) for name in names if name in records]:
                with formatter.section(heading):
                    formatter.write_dl(rows)
        if records:
            with formatter.section(_OTHER_OPTIONS):
                formatter.write_dl(list(records.values()))
