"""Plots of a record: latency by size and batch, a timeline of one generation, a flame graph of operators."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from sdrt.benchmark.summary import summarise
from sdrt.common.extras import install_command
from sdrt.common.spans import DENOISE, DOWNLOAD, UPLOAD
from sdrt.errors import RequestError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PLOTS", "draw", "require_matplotlib"]

Record = Mapping[str, Any]

_ROWS = ("text_encoder", "unet", "guidance", "scheduler", "transfers", "vae_decoder", "other")
_COLOURS = {
    "text_encoder": "#4c78a8",
    "unet": "#f58518",
    "guidance": "#72b7b2",
    "scheduler": "#54a24b",
    "transfers": "#b279a2",
    "vae_decoder": "#e45756",
    "other": "#bab0ac",
}
_PALETTE = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#eeca3b", "#9d755d", "#bab0ac")
_MARKERS = "osD^vP*X"
# A bar has its name written into it if it is at least this share of the figure's width.
_LEGIBLE = 0.014


def require_matplotlib(option: str) -> None:
    """Raises `RequestError` with the command to run if matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise RequestError.advised(
            f"{option} draws with matplotlib, which cannot be imported ({error})",
            install_command("benchmark"),
            argument=option,
        ) from error


def draw(plot: str, record: Record) -> bytes:
    """Draw one of `PLOTS`. Returns a PNG."""
    drawn = io.BytesIO()
    PLOTS[plot](record).savefig(drawn, format="png", dpi=144)
    return drawn.getvalue()


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height), layout="constrained")
    return figure, figure.subplots()


def _title(record: Record) -> str:
    machine, model = record["machine"], record["model"]
    devices = ", ".join(gpu["name"] for gpu in machine["gpus"]) or machine["cpu"]
    return f"{model['name']} ({model['dtype'] or 'unknown precision'}) on {devices}"


def latency(record: Record) -> Figure:
    """Plot milliseconds per step by size, with a line for each batch size and each other setting that varies."""
    figure, axes = _figure(4.8)
    sizes = sorted({_size(one) for one in record["measurements"]}, key=lambda size: (size[0] * size[1], size))
    lines = groupby(sorted(record["measurements"], key=_line_key), key=_line_key)
    labels = _line_labels(record)
    lines_found = [(key, list(ones)) for key, ones in lines]
    for number, (key, ones) in enumerate(lines_found):
        ones.sort(key=lambda one: sizes.index(_size(one)))
        _line(axes, ones, sizes, record["rules"]["confidence"], number, len(lines_found), labels[key])
    axes.set_xticks(range(len(sizes)), [f"{width}×{height}" for width, height in sizes])
    axes.set_xlim(-0.5, len(sizes) - 0.5)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("width × height")
    axes.set_ylabel("milliseconds per step, of the batch")
    axes.set_title(
        f"{_title(record)}\nmedian with its interval; the tick above is the 90th percentile", fontsize=10
    )
    axes.grid(axis="y", alpha=0.3)
    if len(lines_found) > 1:
        axes.legend(fontsize=8)
    return figure


def _line(
    axes: Axes,
    ones: Sequence[Mapping[str, Any]],
    sizes: Sequence[tuple[int, int]],
    confidence: float,
    number: int,
    count: int,
    label: str,
) -> None:
    steps = [summarise(one, confidence)["step"] for one in ones]
    # Shift the lines, so that none hides another.
    shift = (number - (count - 1) / 2) * min(0.08, 0.6 / count)
    places = [sizes.index(_size(one)) + shift for one in ones]
    medians = [step["p50"] * 1e3 for step in steps]
    ends = [step["interval"] or [step["p50"]] * 2 for step in steps]
    errors = [
        [middle - end[0] * 1e3 for middle, end in zip(medians, ends, strict=True)],
        [end[1] * 1e3 - middle for middle, end in zip(medians, ends, strict=True)],
    ]
    colour = _PALETTE[number % len(_PALETTE)]
    axes.errorbar(
        places,
        medians,
        yerr=errors,
        color=colour,
        marker=_MARKERS[number % len(_MARKERS)],
        capsize=4,
        label=label,
    )
    p90 = [(place, step["p90"] * 1e3) for place, step in zip(places, steps, strict=True) if step["p90"]]
    axes.plot([place for place, _ in p90], [value for _, value in p90], "_", color=colour, markersize=10)


def _size(one: Mapping[str, Any]) -> tuple[int, int]:
    return one["settings"]["width"], one["settings"]["height"]


def _line_key(one: Mapping[str, Any]) -> tuple[str, ...]:
    settings = one["settings"]
    return (f"{settings['batch']:05}", settings["provider"], settings["scheduler"], str(settings["threads"]))


def _line_labels(record: Record) -> dict[tuple[str, ...], str]:
    """The labels of the lines: the batch size, and the other settings that vary."""
    keys = {_line_key(one) for one in record["measurements"]}
    varies = [len({key[place] for key in keys}) > 1 for place in range(4)]
    return {
        key: ", ".join(
            [
                f"batch {int(key[0])}",
                *(part for part, shown in zip(key[1:3], varies[1:3], strict=True) if shown),
            ]
            + ([f"{key[3]} threads"] if varies[3] else [])
        )
        for key in keys
    }


def timeline(record: Record) -> Figure:
    """Plot the timeline of the median generation of the first configuration."""
    one = record["measurements"][0]
    spans = [(name, start, end) for name, start, end in one["timeline"]]
    figure, axes = _figure(3.6)
    bars = list(_bars(spans, one))
    rows = [row for row in _ROWS if any(name == row for name, _, _ in bars)]
    scale, unit = (1e3, "milliseconds") if bars[-1][2] < 1 else (1.0, "seconds")
    for place, row in enumerate(rows):
        own = [(start * scale, (end - start) * scale) for name, start, end in bars if name == row]
        # White edges separate the steps. They would hide the other bars, which are thin.
        edge = "white" if row == "unet" else _COLOURS[row]
        axes.broken_barh(own, (place - 0.4, 0.8), facecolor=_COLOURS[row], edgecolor=edge, linewidth=0.6)
    axes.set_yticks(range(len(rows)), [f"{row.replace('_', ' ')}" for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, bars[-1][2] * scale)
    axes.set_xlabel(f"{unit} from the request")
    settings = one["settings"]
    what = f"{settings['width']}×{settings['height']}, batch {settings['batch']}, {settings['scheduler']}"
    axes.set_title(f"{_title(record)}\none generation: {what}, {settings['steps']} steps", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    return figure


_KINDS = {UPLOAD: "transfers", DOWNLOAD: "transfers"}


def _bars(
    spans: Sequence[tuple[str, float, float]], one: Mapping[str, Any]
) -> Iterator[tuple[str, float, float]]:
    """Spans that do not overlap: the nested spans, and the gaps between them."""
    leaves = sorted((s for s in spans if s[0] != DENOISE), key=lambda span: span[1])
    denoised = sorted((s for s in spans if s[0] == DENOISE), key=lambda span: span[1])
    at = 0.0
    for name, start, end in leaves:
        yield from _between(at, start, denoised)
        # Further text encoders are one row with the first.
        yield _KINDS.get(name, "text_encoder" if name.startswith("text_encoder") else name), start, end
        at = end
    total = sorted(generation["total"] for generation in one["generations"])
    yield from _between(at, max(at, total[len(total) // 2]), denoised)


def _between(
    start: float, end: float, denoised: Sequence[tuple[str, float, float]]
) -> Iterator[tuple[str, float, float]]:
    """The gap between two spans: guidance inside a denoising, scheduler between two of them, else other."""
    first, last = denoised[0][1], denoised[-1][2]
    edges = sorted({start, end, *(e for _, a, b in denoised for e in (a, b) if start < e < end)})
    for left, right in pairwise(edges):
        middle = (left + right) / 2
        if any(a <= middle <= b for _, a, b in denoised):
            yield "guidance", left, right
        else:
            yield "scheduler" if first < middle < last else "other", left, right


def flame(record: Record) -> Figure:
    """Plot components, their operators, and the blocks of the network below those. Widths are shares of the time."""
    one = next(one for one in record["measurements"] if one.get("profile"))
    profile, settings = one["profile"], one["settings"]
    figure, axes = _figure(5.2)
    left, total = 0.0, sum(part["seconds"] for part in profile["components"].values())
    for name, part in profile["components"].items():
        _bar(axes, 0, left, part["seconds"], total, name.replace("_", " "), _COLOURS.get(name, "#bab0ac"))
        _operators(axes, part, left, total)
        left += part["seconds"]
    axes.set_xlim(0, 100)
    axes.set_ylim(2.5, -0.5)
    axes.set_yticks(range(3), ["component", "operator", "block"])
    axes.set_xlabel("% of the time in ONNX Runtime, profiled; grey: outside operators")
    what = f"{settings['width']}×{settings['height']}, batch {settings['batch']}, {settings['provider']}"
    axes.set_title(f"{_title(record)}\n{what}: {profile['steps']} steps", fontsize=10)
    return figure


def _operators(axes: Axes, part: Mapping[str, Any], left: float, total: float) -> None:
    for number, (operator, rows) in enumerate(_by_operator(part["operators"])):
        seconds = sum(row["seconds"] for row in rows)
        colour = _PALETTE[number % (len(_PALETTE) - 1)]
        _bar(axes, 1, left, seconds, total, operator, colour)
        at = left
        for row in sorted(rows, key=lambda row: row["block"]):
            _bar(axes, 2, at, row["seconds"], total, row["block"] or "?", colour, alpha=0.6)
            at += row["seconds"]
        left += seconds
    operators = sum(row["seconds"] for row in part["operators"])
    _bar(axes, 1, left, max(part["seconds"] - operators, 0.0), total, "outside", "#dddddd")


def _by_operator(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """The rows of each operator, the slowest operator first."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["operator"], []).append(row)
    return sorted(found.items(), key=lambda item: -sum(row["seconds"] for row in item[1]))


def _bar(
    axes: Axes, row: int, left: float, width: float, total: float, name: str, colour: str, alpha: float = 1.0
) -> None:
    start, share = left / total * 100, width / total * 100
    axes.barh(
        row, share, left=start, height=0.96, color=colour, alpha=alpha, edgecolor="white", linewidth=0.4
    )
    if share > _LEGIBLE * 100:
        wide = share > len(name) * 1.05 + 1
        axes.text(
            start + share / 2,
            row,
            name,
            ha="center",
            va="center",
            fontsize=7,
            rotation=0 if wide else 90,
            clip_on=True,
        )


PLOTS: Mapping[str, Callable[[Record], Figure]] = {"latency": latency, "timeline": timeline, "flame": flame}
"""Name of a plot → the function that draws it."""
