"""`sdrt doctor`: prints one line per check, and the command that fixes what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import click

from sdrt.cli.checkpoint_options import beside_options, model_option
from sdrt.cli.doctor.check_result import Finding, Status
from sdrt.cli.echo import echo, echo_json
from sdrt.cli.group import debug_option
from sdrt.cli.param_types import Sizes
from sdrt.cli.provider_options import (
    allow_fallback_option,
    provider_library_option,
    provider_option,
    provider_options_option,
)
from sdrt.cli.settings import CONTEXT
from sdrt.common.progress import Display
from sdrt.common.visible import visible

__all__ = ["doctor"]

MARKS = {Status.OK: "ok   ", Status.NOTE: "note ", Status.WARNING: "warn ", Status.ERROR: "ERROR"}


@click.command(context_settings=CONTEXT)
@model_option("Model to make an image with.")
@beside_options
@click.option(
    "--size",
    "sizes",
    metavar="A,BxC,…",
    type=Sizes(),
    help="Estimate the memory that images of these sizes take, from smaller ones, and say what fits.",
)
@click.option(
    "-b",
    "--batch",
    "--batch-size",
    "batch",
    type=click.IntRange(1, 1000),
    help="Images per batch, with --size.  [default: 1]",
)
@provider_option
@provider_options_option
@provider_library_option
@allow_fallback_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@debug_option
@click.pass_context
def doctor(
    context: click.Context, /, model: str, as_json: bool, sizes: Any, batch: int | None, **options: Any
) -> None:
    """Check this installation and say how to fix it. With --size, say whether images of that size fit into memory.

    The exit code is that of the first error, or 0 if there is none.
    """
    from sdrt.cli.doctor.checks import run_checks

    if batch is not None and sizes is None:
        raise click.UsageError("--batch applies to --size: add --size", context)
    display = Display(quiet=as_json)
    findings = []
    for finding in run_checks(model, **options, sizes=sizes, batch=batch or 1, tell=display.notice):
        findings.append(finding)
        if not as_json:
            echo(_render(finding))
    code = first_error_code(findings)
    if as_json:
        echo_json({"findings": [asdict(finding) for finding in findings], "exit_code": code})
    context.exit(code)


def first_error_code(findings: Iterable[Finding]) -> int:
    """Exit code of the first error, 0 without one. Warnings do not count."""
    return next((finding.exit_code for finding in findings if finding.status is Status.ERROR), 0)


def _render(finding: Finding) -> str:
    line = f"{MARKS[finding.status]}  {visible(finding.name)}: {visible(finding.detail)}"
    return f"{line}\n         {visible(finding.remedy)}" if finding.remedy else line
