"""Draws and evaluates images with every scheduler. ``python -m sdrt_models.shapes.gallery DIR``

It writes ``docs/gallery.md`` in DIR, the images on that page, and its figures as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import click
from PIL import Image

from sdrt import Request, RequestError, SdrtError, StableDiffusionPipeline
from sdrt.images.contact_sheet import ContactSheet
from sdrt.schedulers import SAMPLERS
from sdrt.schedulers.table import SamplerRow
from sdrt_models.shapes.evaluate import Settings, measure
from sdrt_models.shapes.gallery_page import (
    PLOT,
    RESULTS,
    SHOWN,
    STEPS,
    Figures,
    Judged,
    families_of,
    family_of,
    page,
    plot,
)
from sdrt_models.shapes.scoring import Rate

__all__ = ["main", "make_gallery"]

_SEED = 2
_BATCH = 8


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--prompts", type=click.IntRange(min=1), default=40, show_default=True)
@click.option(
    "--scheduler",
    "names",
    multiple=True,
    type=click.Choice(tuple(SAMPLERS)),
    help="Update only this scheduler, and keep the others as they are in DIR. Can be repeated.",
)
def main(folder: Path, prompts: int, names: tuple[str, ...]) -> None:
    """Draw and evaluate images with every scheduler. Write the page, the images and the figures to DIR.

    DIR is a checkout of the project.
    """
    try:
        with StableDiffusionPipeline.from_pretrained("shapes", provider="cpu") as pipeline:
            files = make_gallery(pipeline, folder, prompts=prompts, names=names or tuple(SAMPLERS))
    except SdrtError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    for file in files:
        click.echo(str(file))


def make_gallery(
    pipeline: StableDiffusionPipeline, folder: Path, *, prompts: int, names: Sequence[str]
) -> list[Path]:
    """Draw with the schedulers `names`, and evaluate `prompts` images of each. Returns the files that were written.

    Figures of other schedulers in `folder` stay as they are, if they have the same settings.

    Raises:
        RequestError: the model runs with none of the schedulers.
    """
    settings = _settings(pipeline, prompts)
    refused = _refused(pipeline)
    again = [SAMPLERS[name] for name in names if name not in refused]
    kept = [one for one in _read(folder / RESULTS, settings) if one.row.name not in {*names, *refused}]
    if not again and not kept:
        raise RequestError(refused[names[0]])
    judged = kept + _judge(pipeline, again, prompts)
    figures = Figures(settings=settings, judged=judged, refused=refused)
    return [*_save_sheets(pipeline, figures, again, folder), *_save(figures, folder)]


def _settings(pipeline: StableDiffusionPipeline, prompts: int) -> dict[str, Any]:
    manifest = pipeline.model.manifest
    return {
        "model": pipeline.model.name,
        "dtype": manifest.dtype if manifest else None,
        "provider": pipeline.provider,
        "prompts": prompts,
        "steps": list(STEPS),
        "guidance_scale": pipeline.model.capabilities.guidance_scale,
        "seed": Settings.seed,
        "batch": _BATCH,
        "judged": "everything",
    }


def _refused(pipeline: StableDiffusionPipeline) -> dict[str, str]:
    """The schedulers that this model does not run with, each with the reason."""
    reasons = {}
    for name in SAMPLERS:
        try:
            pipeline.scheduler_for(name)
        except SdrtError as error:
            reasons[name] = str(error)
    return reasons


def _judge(pipeline: StableDiffusionPipeline, rows: Sequence[SamplerRow], prompts: int) -> list[Judged]:
    """Evaluate all schedulers on the same prompts and seeds."""
    runs = list(product(rows, STEPS))
    with click.progressbar(runs, label="evaluating", item_show_func=_shown) as bar:
        return [_judge_one(pipeline, row, steps, prompts) for row, steps in bar]


def _shown(run: tuple[SamplerRow, int] | None) -> str:
    return "" if run is None else f"{run[0].display_name}, {run[1]} steps"


def _judge_one(pipeline: StableDiffusionPipeline, row: SamplerRow, steps: int, prompts: int) -> Judged:
    request = Request(prompt=SHOWN[0], num_inference_steps=steps)
    settings = Settings(num_inference_steps=steps, scheduler=row.name, batch=_BATCH)
    return Judged(
        row=row,
        steps=steps,
        evaluations=_evaluations(pipeline, request, row),
        rate=measure(pipeline, prompts, settings)["everything"],
    )


def _evaluations(pipeline: StableDiffusionPipeline, request: Request, row: SamplerRow) -> int:
    planned = pipeline.num_evaluations(request, scheduler=row.name)
    if planned is not None:
        return planned
    # It chooses its steps, so they are counted. The last event is the result.
    seeded = replace(request, seed=_SEED)
    return sum(1 for _ in pipeline.stream(seeded, scheduler=row.name)) - 1


def _save_sheets(
    pipeline: StableDiffusionPipeline, figures: Figures, again: Sequence[SamplerRow], folder: Path
) -> list[Path]:
    """Write the sheets that changed."""
    changed = {family_of(row) for row in again}
    files = []
    for family, rows in families_of(figures.rows):
        if family in changed:
            path = folder / family.image
            path.parent.mkdir(parents=True, exist_ok=True)
            _sheet(pipeline, rows).save(path, quality=90, method=6)
            files.append(path)
    return files


def _sheet(pipeline: StableDiffusionPipeline, rows: Sequence[SamplerRow]) -> Image.Image:
    """A contact sheet with a row for each scheduler: each prompt in turn, with the numbers of `STEPS`."""
    capabilities = pipeline.model.capabilities
    columns = len(SHOWN) * len(STEPS)
    sheet = ContactSheet(
        count=len(rows) * columns,
        width=capabilities.default_width,
        height=capabilities.default_height,
        columns=columns,
    )
    for row in rows:
        runs = [
            pipeline(list(SHOWN), num_inference_steps=steps, scheduler=row.name, seed=_SEED).images
            for steps in STEPS
        ]
        for images in zip(*runs, strict=True):
            for steps, image in zip(STEPS, images, strict=True):
                sheet.add(image, f"{row.display_name}, {steps} steps")
    return sheet.render()


def _save(figures: Figures, folder: Path) -> list[Path]:
    """Write the plot, the page and the JSON."""
    drawn, written, results = folder / PLOT, folder / "docs" / "gallery.md", folder / RESULTS
    for path in (drawn, results):
        path.parent.mkdir(parents=True, exist_ok=True)
    plot(figures, drawn)
    written.write_text(page(figures), encoding="utf-8")
    report = {
        "settings": figures.settings,
        "results": [_as_json(one) for row in figures.rows for one in figures.of(row)],
        "refused": figures.refused,
    }
    results.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return [drawn, written, results]


def _as_json(one: Judged) -> dict[str, Any]:
    rate = one.rate
    return {
        "scheduler": one.row.name,
        "steps": one.steps,
        "evaluations": one.evaluations,
        **vars(rate),
        "share": rate.share,
        "low": rate.low,
        "high": rate.high,
    }


def _read(results: Path, settings: Mapping[str, Any]) -> list[Judged]:
    """The results of an earlier run with these settings; empty if there was none."""
    report = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    if report.get("settings") != settings:
        return []
    return [
        Judged(
            row=SAMPLERS[one["scheduler"]],
            steps=one["steps"],
            evaluations=one["evaluations"],
            rate=Rate(right=one["right"], total=one["total"]),
        )
        for one in report["results"]
    ]


if __name__ == "__main__":
    main()
