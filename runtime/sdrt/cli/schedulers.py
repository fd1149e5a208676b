"""`sdrt schedulers`: what `--scheduler` and `--spacing` can name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sdrt.cli.echo import echo, echo_json
from sdrt.cli.group import debug_option
from sdrt.cli.settings import CONTEXT
from sdrt.cli.tables import columns

if TYPE_CHECKING:
    from sdrt.schedulers.table import SamplerRow

__all__ = ["schedulers"]

HEADINGS = ("name", "A1111's name", "diffusers' class", "order", "calls", "fresh noise", "spacings")


@click.command(context_settings=CONTEXT)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@debug_option
def schedulers(as_json: bool) -> None:
    """List the schedulers and the spacings.

    `--scheduler` takes a name, A1111's name or diffusers' class. A spacing may follow: "DPM++ 2M Karras". `order` is
    the order of convergence. `calls` is the number of U-Net calls in each step except the last. Schedulers whose names
    start with `edm_` or `flow_` are only for models that were trained that way.
    """
    from sdrt.schedulers import SAMPLERS, SPACING_LABELS, SPACINGS

    if as_json:
        rows = [_as_json(row) for row in SAMPLERS.values()]
        echo_json({"schedulers": rows, "spacings": list(SPACINGS)})
        return
    every = tuple(SPACINGS)
    echo(columns([HEADINGS, *(_cells(row, every) for row in SAMPLERS.values())]))
    echo(f"\nspacings: {', '.join(every)}")
    echo(f"A1111's schedule types: Automatic, Uniform, {', '.join(SPACING_LABELS.values())}")


def _cells(row: SamplerRow, every: tuple[str, ...]) -> tuple[str, ...]:
    spacings = "all" if row.spacings == every else ", ".join(row.spacings) or "its own"
    noise = "--eta" if row.eta is None else ("yes" if row.eta else "no")
    order = str(row.order) if row.order else "-"
    return (row.name, row.display_name, row.class_name or "-", order, str(row.evaluations), noise, spacings)


def _as_json(row: SamplerRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "display_name": row.display_name,
        "class_name": row.class_name or None,
        "aliases": list(row.aliases),
        "order": row.order or None,
        "evaluations": row.evaluations,
        "eta": row.eta,
        "spacings": list(row.spacings),
    }
