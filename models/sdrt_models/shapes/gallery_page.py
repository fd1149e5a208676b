"""The page of :mod:`~sdrt_models.shapes.gallery`: which schedulers stand together, a plot, a table, and the words."""

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
    "PICTURES",
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
"""Training had no purple square, and no words for one."""

PICTURES = Path("docs", "pictures")
PLOT = PICTURES / "schedulers-accuracy.png"
RESULTS = Path("benchmarks", "results", "shapes-schedulers.json")

_WIDTH = 120
_ANCESTRAL = (samplers.ancestral, samplers.dpm2, samplers.ddpm)
# Okabe and Ito's colours, which colour-blind people tell apart, without the yellow.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_LEAST_GAP = 7.0


@dataclass(frozen=True, kw_only=True)
class Family:
    """Schedulers that are shown together."""

    slug: str
    title: str
    about: str

    @property
    def picture(self) -> Path:
        """Their sheet."""
        return PICTURES / f"schedulers-{self.slug}.webp"


_FIRST_ORDER = Family(
    slug="first-order",
    title="First order",
    about="One evaluation a step, and no noise after the first (DDIM with `--eta 0`, its default).",
)
_SINGLE_STEP = Family(
    slug="single-step",
    title="Single-step, higher order",
    about="A step looks ahead. Heun and DPM2 take two evaluations for it, but for the last step; DPM++ 2S and 3S count "
    "each evaluation as a step.",
)
_MULTISTEP = Family(
    slug="multistep",
    title="Multistep, higher order",
    about="A step remembers what the ones before it found: one evaluation a step, and one more for PLMS. LMS, PLMS and "
    "iPNDM, which go by the noise and are of order 4, need many steps.",
)
_ANCESTRAL_STEPS = Family(
    slug="ancestral",
    title="Ancestral",
    about="A step goes further than it has to and puts fresh noise back. DPM2 a takes two evaluations for it, but for "
    "the last step.",
)
_SDE = Family(
    slug="sde",
    title="SDE solvers",
    about="Fresh noise in each step, as the stochastic differential equation has it. DPM++ SDE takes two evaluations a "
    "step, but for the last.",
)
_DISTILLED = Family(
    slug="distilled",
    title="For distilled models",
    about="LCM and TCD (with `--eta 0`, its default) are for models that were distilled for them, with little guidance "
    "or none. This model was not, and its guidance is mild: at Stable Diffusion's usual 7.5 LCM is poor.",
)
FAMILIES = (_FIRST_ORDER, _SINGLE_STEP, _MULTISTEP, _ANCESTRAL_STEPS, _SDE, _DISTILLED)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Of one scheduler and number of steps: U-Net evaluations of a picture, and how often everything is right."""

    row: SamplerRow
    steps: int
    evaluations: int
    rate: Rate


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a run found, what it was run with, and why schedulers are not in it."""

    settings: Mapping[str, Any]
    judged: Sequence[Judged]
    refused: Mapping[str, str]

    @property
    def rows(self) -> list[SamplerRow]:
        """The schedulers, in the order of sdrt's table."""
        names = {one.row.name for one in self.judged}
        return [row for row in SAMPLERS.values() if row.name in names]

    def of(self, row: SamplerRow) -> list[Judged]:
        """What one scheduler did, by steps."""
        return sorted((one for one in self.judged if one.row is row), key=lambda one: one.steps)


def family_of(row: SamplerRow) -> Family:
    """Where a scheduler is shown."""
    if row.order == 0:
        return _DISTILLED
    if row.eta:
        return _ANCESTRAL_STEPS if row.integrate in _ANCESTRAL else _SDE
    if row.order == 1:
        return _FIRST_ORDER
    singlestep = row.evaluations > 1 or row.integrate is samplers.dpmpp_singlestep
    return _SINGLE_STEP if singlestep else _MULTISTEP


def families_of(rows: Iterable[SamplerRow]) -> list[tuple[Family, list[SamplerRow]]]:
    """The families that have any of these schedulers, and which."""
    members = {family: [row for row in rows if family_of(row) is family] for family in FAMILIES}
    return [(family, shown) for family, shown in members.items() if shown]


def plot(figures: Figures, path: Path) -> None:
    """Accuracy against U-Net evaluations: a panel for each family, the others behind it in grey."""
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
    figure.suptitle(f"Pictures with everything right, of {figures.settings['prompts']} held-out prompts")
    figure.supxlabel(f"U-Net evaluations a picture; {_intervals(figures.judged)}", fontsize=9)
    figure.savefig(path, dpi=100)


def _intervals(judged: Iterable[Judged]) -> str:
    width = max(one.rate.high - one.rate.low for one in judged)
    return f"95 % intervals are up to {100 * width:.0f} points wide"


def _panel(axes: Axes, family: Family, members: Sequence[SamplerRow], figures: Figures) -> None:
    for row in figures.rows:
        axes.plot(*_line(figures.of(row)), color="#dddddd", linewidth=0.8, zorder=1)
    lines = [_line(figures.of(row)) for row in members]
    heights = _apart([shares[-1] for _, shares in lines])
    for row, line, height, colour in zip(members, lines, heights, _COLOURS, strict=False):
        axes.plot(*line, color=colour, marker="o", markersize=4, linewidth=1.4, zorder=2)
        _label(axes, row.display_name, (line[0][-1], line[1][-1]), height, colour)
    ticks = (5, 10, 20, 40)
    axes.set(title=family.title, xscale="log", xlim=(4.5, 44), ylim=(-3, 103), ylabel="%")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.label_outer()
    axes.grid(alpha=0.2)


def _line(judged: Iterable[Judged]) -> tuple[list[int], list[float]]:
    """Evaluations and per cent."""
    pairs = [(one.evaluations, 100 * one.rate.share) for one in judged]
    return [evaluations for evaluations, _ in pairs], [share for _, share in pairs]


def _label(axes: Axes, name: str, end: tuple[float, float], height: float, colour: str) -> None:
    """The name of a line, right of the panel, led to the line's end."""
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
    """Heights at which labels do not cover each other: the highest stays, those below it give way."""
    placed = list(heights)
    order = [int(index) for index in np.argsort(heights, kind="stable")[::-1]]
    for above, below in pairwise(order):
        placed[below] = min(placed[below], placed[above] - _LEAST_GAP)
    return placed


_PAGE = """# What the schedulers make

The embedded model `shapes` draws with every scheduler that can run it, at {steps} steps and its own
guidance, {guidance:g}. All of this page is made by one program, in a checkout:

```sh
pip install -e '.[cpu,train]'
python -m sdrt_models.shapes.gallery --prompts {prompts} .
```

`--scheduler NAME` makes one of them again and leaves the others.

## How often everything is right

{prompts} prompts of scenes of which training had neither picture nor words are drawn, each once with every scheduler
and number of steps, from the same seed; a program without a network says what the pictures show ([model
card](../models/sdrt_models/shapes/MODEL_CARD.md)). *Everything* is a picture with nothing wrong in it: number, colours,
shapes, sizes, fills, background, and what lies where. In brackets are 95 % intervals. Prompts and seeds are the same
for all, so that schedulers differ by less chance than the intervals say; a few per cent still mean nothing. Evaluations
are those of the U-Net for one picture, each with the prompt and without it.

![Accuracy against U-Net evaluations, a panel for each family of schedulers]({plot})

{table}

The figures are in [benchmarks/results](../{results}). This model is small and
draws flat colours: what is hard for it is not what is hard for a model of photographs, and the order among schedulers
is this model's own.
{refused}
## Pictures

Each row is a scheduler. On the left and on the right are, each always from one seed:

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


def _link(picture: Path) -> str:
    return picture.relative_to("docs").as_posix()


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
    """What is not shown, and why."""
    if not refused:
        return ""
    lines = [
        textwrap.fill(f"- {SAMPLERS[name].display_name}: {reason}.", _WIDTH, subsequent_indent="  ")
        for name, reason in refused.items()
    ]
    return "\n".join(["", "sdrt refuses this model some of its schedulers:", "", *lines, ""])


def _section(family: Family, rows: Sequence[SamplerRow]) -> str:
    names = _listed(row.display_name for row in rows)
    return f"\n### {family.title}\n\n{textwrap.fill(family.about, _WIDTH)}\n\n![{names}]({_link(family.picture)})\n"
