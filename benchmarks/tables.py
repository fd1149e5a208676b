"""This module writes the record of `peers` as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bars import HOLDS_FOR
from benchmarks.figures import BYTES
from benchmarks.measure import markdown
from benchmarks.systems import OURS

__all__ = ["bars", "missing", "multiplication", "report", "systems"]

TITLES = {
    "import": "import",
    "load": "load",
    "first_picture": "first image from process start",
    "first_step": "first step",
    "step": "step",
    "decode": "decode",
    "generation": "an image when warm",
    "own": "peak memory",
    "resident": "with mapped files",
    "device": "device memory",
}


def systems(figures: Mapping[str, Any]) -> str:
    """The table of the systems: medians, and in brackets the ratio to sdrt with its spread over the rounds."""
    settings = figures["settings"]
    size = settings["size"]
    keys = [key for key in TITLES if any(key in row for row in figures["systems"].values())]
    header = [
        f"{settings['architecture']}, {settings['device']}, {size}×{size}",
        *(TITLES[key] for key in keys),
    ]
    return markdown(header, [_row(name, keys, figures) for name in figures["systems"]])


def _row(name: str, keys: Sequence[str], figures: Mapping[str, Any]) -> list[str]:
    cells = [f"`{name}`"]
    for key in keys:
        value = figures["systems"][name].get(key)
        cells.append(
            _cell(key, value, figures["ratios_to_sdrt"].get(name, {}).get(key), name) if value else ""
        )
    return cells


def _cell(key: str, value: Mapping[str, float], ratio: Mapping[str, float] | None, name: str) -> str:
    shown = _bytes(value["median"]) if key in BYTES else _seconds(value["median"])
    if key == "step":
        shown += f" [{_seconds(value['min'])}–{_seconds(value['max'])}]"
    if ratio and name != OURS:
        shown += f" ({ratio['median']:.2f}×, {ratio['min']:.2f}–{ratio['max']:.2f})"
    return shown


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def _bytes(value: float) -> str:
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def bars(figures: Mapping[str, Any]) -> str:
    """The table of the goals, each with its figure and "met", "NOT met" or "not measured"."""
    rows = [
        [f"`{bar['system']}`", bar["bar"], bar["wanted"], _figure(bar["figure"]), bar["verdict"]]
        for bar in figures["bars"]
    ]
    return markdown(["system", "goal", "limit", "measured", "verdict"], rows)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def report(figures: Mapping[str, Any]) -> str:
    """The whole report in Markdown."""
    parts = [systems(figures), bars(figures), *_notes(figures)]
    return "\n".join(parts)


def missing(figures: Mapping[str, Any]) -> list[str]:
    """A line for each system that was not measured, with the reason."""
    return [f"- not measured: {name}: {reason}" for name, reason in figures["missing"].items()]


def multiplication(figures: Mapping[str, Any]) -> list[str]:
    """Lines with the device's rate of matrix multiplication, and the share of it that each system reaches in a step."""
    peak = figures["peak"]
    return [f"- {_multiplied(peak)}", *(_reached(name, row) for name, row in peak["systems"].items())]


def _notes(figures: Mapping[str, Any]) -> list[str]:
    settings, machine = figures["settings"], figures["device"]
    done = len(figures["turns"])
    gpus = "".join(f"{gpu['name']}, driver {gpu['driver']}; " for gpu in machine["gpus"])
    numbers = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    lines = missing(figures)
    lines += [f"- images: {_differences(figures['pictures_differ_by'])}", *multiplication(figures)]
    if not figures["peak"]["counted"]:
        lines.append(f"- the goals and the count of multiply-adds are for {HOLDS_FOR}: this is a rehearsal")
    lines.append(
        f"- {gpus}{machine['cpu']}, {machine['logical_cores']} cores; {done} of {settings['rounds']} rounds of "
        f"{settings['generations']} warm generations of {settings['steps']} steps; brackets hold the ratio to "
        f"`{OURS}` within a round: median, minimum–maximum. {numbers}."
    )
    return ["\n".join(lines) + "\n"]


def _differences(differences: Mapping[str, int]) -> str:
    listed = [f"{name} {levels}" for name, levels in differences.items() if name != OURS]
    return f"difference of the thumbnails from {OURS}'s, in levels of 255: {', '.join(listed) or 'no other systems'}"


def _multiplied(peak: Mapping[str, Any]) -> str:
    best = peak["multiplication_tflops"]
    return (
        "matrix multiplication: not measured"
        if best is None
        else f"matrix multiplication: {best:.3g} TFLOP/s"
    )


def _reached(name: str, row: Mapping[str, Any]) -> str:
    share = "" if row["share"] is None else f", {row['share']:.0%} of that of matrix multiplication"
    return f"- `{name}`: {row['tflops']:.3g} TFLOP/s in a step{share}"
