"""The page that :mod:`~sdrt_models.shapes.gallery` writes: families of schedulers, a plot, a table and the text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdrt.schedulers import SAMPLERS, samplers
from sdrt.schedulers.table import SamplerRow
from sdrt_models.shapes.scoring import Rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "FAMILIES",
    "IMAGES",
    "PLOT",
    "RESULTS",
    "SHOWN",
    "STEPS",
    "Family",
    "Figures",
    "Judged",
    "families_of",
    "family_of",
    "page",
    "plot",
]

STEPS = (5, 10, 20)
SHOWN = (
    "a small blue star left of a large green square on a gray background",
    "a large striped purple square on a white background",
)
"""The training had no image of a purple square, and no caption for one."""

IMAGES = Path("docs", "images")
PLOT = IMAGES / "schedulers-accuracy.png"
RESULTS = Path("benchmarks", "results", "shapes-schedulers.json")

_WIDTH = 120
_ANCESTRAL = (
    *(samplers.ancestral, samplers.dpm2, samplers.ddpm, samplers.dpmpp_2s_ancestral),
    *(samplers.restart, samplers.dpm_fast, samplers.dpm_adaptive),
)
# Okabe and Ito's colours without the yellow: colour-blind people can tell them apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_LEAST_GAP = 7.0


@dataclass(frozen=True, kw_only=True)
class Family:
    """Schedulers that the page shows together."""

    slug: str
    title: str
    about: str

    @property
    def image(self) -> Path:
        """The path of their contact sheet."""
        return IMAGES / f"schedulers-{self.slug}.webp"


_FIRST_ORDER = Family(
    slug="first-order",
    title="First order",
    about="These take one evaluation a step, and add no noise after the start (DDIM and DDIM CFG++ with `--eta 0`, its "
    "default). DDIM CFG++ guides by a share of the scale, for which this model's 3 is little.",
)
_SINGLE_STEP = Family(
    slug="single-step",
    title="Single-step, higher order",
    about="A step looks ahead. Heun and DPM2 take two evaluations for each step except the last. DPM++ 2S and 3S count "
    "each evaluation as a step.",
)
_MULTISTEP = Family(
    slug="multistep",
    title="Multistep, higher order",
    about="A step uses the results of the steps before it. It takes one evaluation; PLMS takes one more per image. "
    "LMS, PLMS and iPNDM work on the predicted noise with order 4, and need many steps.",
)
_ANCESTRAL_STEPS = Family(
    slug="ancestral",
    title="Ancestral",
    about="A step removes more noise than it has to, and adds fresh noise. DPM2 a and DPM++ 2S a take two evaluations "
    "for each step except the last. Restart adds noise only where it goes back, from 20 steps on. DPM adaptive takes "
    "as many evaluations as it needs, whatever the number of steps.",
)
_SDE = Family(
    slug="sde",
    title="SDE solvers",
    about="Each step adds fresh noise, as in the stochastic differential equation. DPM++ SDE takes two evaluations for "
    "each step except the last.",
)
_DISTILLED = Family(
    slug="distilled",
    title="For distilled models",
    about="LCM and TCD (with `--eta 0`, its default) are for models that were distilled for them, with little or no "
    "guidance. This model was not distilled. Its guidance is low; with Stable Diffusion's usual 7.5, LCM is poor.",
)
_FIRST_SOLVERS = Family(
    slug="dpm-solver",
    title="The first DPM-Solvers",
    about="These work on the predicted noise, and end at the lowest trained noise level, as in diffusers. With 20 "
    "steps, the last step of 2M SDE draws a line through two noisy predictions, far beyond them. diffusers does the "
    "same; `euler_at_final` in a config prevents it.",
)
FAMILIES = (
    *(_FIRST_ORDER, _SINGLE_STEP, _MULTISTEP, _ANCESTRAL_STEPS, _SDE),
    *(_FIRST_SOLVERS, _DISTILLED),
)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One scheduler with one number of steps: U-Net evaluations per image, and how often everything is right."""

    row: SamplerRow
    steps: int
    evaluations: int
    rate: Rate


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The results of a run, its settings, and the schedulers that were refused, each with the reason."""

    settings: Mapping[str, Any]
    judged: Sequence[Judged]
    refused: Mapping[str, str]

    @property
    def rows(self) -> list[SamplerRow]:
        """The schedulers, in the order of sdrt's table."""
        names = {one.row.name for one in self.judged}
        return [row for row in SAMPLERS.values() if row.name in names]

    def of(self, row: SamplerRow) -> list[Judged]:
        """The results of one scheduler, ordered by steps."""
        return sorted((one for one in self.judged if one.row is row), key=lambda one: one.steps)


def family_of(row: SamplerRow) -> Family:
    """The family that shows a scheduler."""
    if row.order == 0:
        return _DISTILLED
    if row.integrates_noise:
        return _FIRST_SOLVERS
    if row.eta:
        return _ANCESTRAL_STEPS if row.integrate in _ANCESTRAL else _SDE
    if row.order == 1:
        return _FIRST_ORDER
    singlestep = row.evaluations > 1 or row.integrate is samplers.dpmpp_singlestep
    return _SINGLE_STEP if singlestep else _MULTISTEP


def families_of(rows: Iterable[SamplerRow]) -> list[tuple[Family, list[SamplerRow]]]:
    """The families that have any of these schedulers, each with its schedulers."""
    members = {family: [row for row in rows if family_of(row) is family] for family in FAMILIES}
    return [(family, shown) for family, shown in members.items() if shown]


def plot(figures: Figures, path: Path) -> None:
    """Plot accuracy against U-Net evaluations: a panel for each family, with all others behind it in grey."""
    from matplotlib.figure import Figure

    families = families_of(figures.rows)
    columns = min(3, len(families))
    rows = -(-len(families) // columns)
    figure = Figure(figsize=(1 + 3.6 * columns, 1 + 3.0 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes, (family, members) in zip(panels, families, strict=False):
        _panel(axes, family, members, figures)
    for axes in panels[len(families) :]:
        axes.set_axis_off()
    figure.suptitle(f"Images with everything right, of {figures.settings['prompts']} held-out prompts")
    figure.supxlabel(f"U-Net evaluations per image; {_intervals(figures.judged)}", fontsize=9)
    figure.savefig(path, dpi=100)


def _intervals(judged: Iterable[Judged]) -> str:
    width = max(one.rate.high - one.rate.low for one in judged)
    return f"95 % intervals are up to {100 * width:.0f} points wide"


def _panel(axes: Axes, family: Family, members: Sequence[SamplerRow], figures: Figures) -> None:
    for row in figures.rows:
        axes.plot(*_line(figures.of(row)), color="#dddddd", linewidth=0.8, zorder=1)
    lines = [_line(figures.of(row)) for row in members]
    heights = _apart([shares[-1] for _, shares in lines])
    for row, line, height, colour in zip(members, lines, heights, _COLOURS[: len(members)], strict=True):
        axes.plot(*line, color=colour, marker="o", markersize=4, linewidth=1.4, zorder=2)
        _label(axes, row.display_name, (line[0][-1], line[1][-1]), height, colour)
    ticks = (5, 10, 20, 40, 80)
    axes.set(title=family.title, xscale="log", xlim=(4.5, 95), ylim=(-3, 103), ylabel="%")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.label_outer()
    axes.grid(alpha=0.2)


def _line(judged: Iterable[Judged]) -> tuple[list[int], list[float]]:
    """The x values (evaluations) and y values (percent) of a line."""
    pairs = [(one.evaluations, 100 * one.rate.share) for one in judged]
    return [evaluations for evaluations, _ in pairs], [share for _, share in pairs]


def _label(axes: Axes, name: str, end: tuple[float, float], height: float, colour: str) -> None:
    """Write the name of a line to the right of the panel, and connect it with the line's end."""
    axes.annotate(
        name,
        end,
        xytext=(1.03, height),
        textcoords=axes.get_yaxis_transform(),
        color=colour,
        fontsize=9,
        verticalalignment="center",
        arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3},
    )


def _apart(heights: Sequence[float]) -> list[float]:
    """Heights at which labels do not overlap: the highest label stays, and those below it move down."""
    placed = list(heights)
    order = [int(index) for index in np.argsort(heights, kind="stable")[::-1]]
    for above, below in pairwise(order):
        placed[below] = min(placed[below], placed[above] - _LEAST_GAP)
    return placed


_PAGE = """# Scheduler gallery

This page shows what the embedded model `shapes` draws with every scheduler that can run it, in {steps} steps and with
its own guidance, {guidance:g}. One program writes the whole page, in a checkout:

```sh
pip install -e '.[cpu,train]'
python -m sdrt_models.shapes.gallery --prompts {prompts} .
```

`--scheduler NAME` updates one scheduler and keeps the others.

## How often everything is right

{prompts} prompts describe scenes whose images and words the training never saw. Each prompt is drawn once with every
scheduler and number of steps, from the same seed. A program without a neural network reads the images ([model
card](../models/sdrt_models/shapes/MODEL_CARD.md)). The table counts images in which everything is right: number,
colours, shapes, sizes, fills, background and positions. Brackets hold 95 % intervals. All schedulers share prompts and
seeds, so chance separates them less than the intervals suggest; differences of a few percent still mean nothing. The
last column counts evaluations of the U-Net per image, each with and without the prompt.

![Accuracy against U-Net evaluations, a panel for each family of schedulers]({plot})

{table}

The figures are in [benchmarks/results](../{results}). This model is small and
draws flat colours. A model of photographs finds other things difficult, so expect another order of schedulers there.
{refused}
## Images

Each row is a scheduler. The left and the right half show these prompts, with the same seed in every row:

- {shown}
{sheets}"""


def page(figures: Figures) -> str:
    """The page in Markdown, for the folder `docs`."""
    settings = figures.settings
    return _PAGE.format(
        steps=_listed(settings["steps"]),
        guidance=settings["guidance_scale"],
        prompts=settings["prompts"],
        plot=_link(PLOT),
        table=_table(figures),
        results=RESULTS.as_posix(),
        refused=_refusals(figures.refused),
        shown="\n- ".join(SHOWN),
        sheets="".join(_section(family, rows) for family, rows in families_of(figures.rows)),
    )


def _link(image: Path) -> str:
    return image.relative_to("docs").as_posix()


def _listed(words: Iterable[object]) -> str:
    *first, last = map(str, words)
    return f"{', '.join(first)} and {last}" if first else last


def _table(figures: Figures) -> str:
    steps = figures.settings["steps"]
    lines = [
        f"| scheduler | {' | '.join(f'{count} steps' for count in steps)} | evaluations |",
        "|" + " --- |" * (len(steps) + 2),
    ]
    lines += [_table_row(row, figures.of(row)) for _, rows in families_of(figures.rows) for row in rows]
    return "\n".join(lines)


def _table_row(row: SamplerRow, judged: Sequence[Judged]) -> str:
    evaluations = ", ".join(str(one.evaluations) for one in judged)
    return f"| {row.display_name} | {' | '.join(_cell(one.rate) for one in judged)} | {evaluations} |"


def _cell(rate: Rate) -> str:
    return f"{100 * rate.share:.0f} % ({100 * rate.low:.0f}–{100 * rate.high:.0f})"


def _refusals(refused: Mapping[str, str]) -> str:
    """The schedulers that the page does not show, and why."""
    if not refused:
        return ""
    lines = [
        textwrap.fill(f"- {SAMPLERS[name].display_name}: {reason}.", _WIDTH, subsequent_indent="  ")
        for name, reason in refused.items()
    ]
    return "\n".join(["", "sdrt refuses to run this model with some schedulers:", "", *lines, ""])


def _section(family: Family, rows: Sequence[SamplerRow]) -> str:
    names = _listed(row.display_name for row in rows)
    return f"\n### {family.title}\n\n{textwrap.fill(family.about, _WIDTH)}\n\n![{names}]({_link(family.image)})\n"
