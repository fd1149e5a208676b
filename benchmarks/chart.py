"""This command draws a record of `run` or `peers`: seconds per step and peak memory of sdrt and other systems.

    python -m benchmarks chart [RECORD.json] [--output FILE.png] [--systems A,B]

Bars are medians over the rounds, and their lines go from the minimum to the maximum. The dark part of a memory bar is
the system's own memory. The light part is weights that it maps from files, which the kernel may drop.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.command_line import parser_of
from benchmarks.systems import OURS, SYSTEMS
from benchmarks.worker import ROOT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

RECORD = ROOT / "benchmarks" / "results" / "cpu-2-cores.json"
CHART = ROOT / "docs" / "images" / "peers.png"
PACKAGES = ("sdrt", "onnxruntime", "torch", "diffusers", "transformers", "optimum", "optimum-onnx")
"""The caption gives the versions of these packages, if the record has them."""
LABELS: Mapping[str, str] = {
    "optimum": "optimum\n(ONNX Runtime)",
    "diffusers": "diffusers\n(torch, eager)",
    "stable-diffusion.cpp": "stable-\ndiffusion.cpp",
}
HIGHLIGHT, HIGHLIGHT_LIGHT = "#e8590c", "#fbc4a4"
PLAIN, PLAIN_LIGHT = "#7b8794", "#d3d8de"
INK, FAINT = "#1f2933", "#52606d"
GIGABYTE = 1e9


def draw(record: Mapping[str, Any], output: Path, names: Sequence[str] | None = None) -> None:
    """Draw `names`, or every system of the record, to `output`. The file name gives the format."""
    from matplotlib.figure import Figure

    measured = _of_peers(record)
    systems: Mapping[str, Any] = measured["systems"]
    shown = _chosen(systems, names)
    figure = Figure(figsize=(8, _height(len(shown))), dpi=200, facecolor="white")
    seconds, memory = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(left=0.19, right=0.975, wspace=0.12, **_edges(len(shown)))
    _draw_seconds(seconds, [systems[name]["step"] for name in shown], shown)
    _draw_memory(memory, [systems[name] for name in shown], shown)
    seconds.set_yticks(range(len(shown)), [LABELS.get(name, name) for name in shown], fontsize=11, color=INK)
    for label, name in zip(seconds.get_yticklabels(), shown, strict=True):
        if SYSTEMS[name].is_ours:
            label.set(color=HIGHLIGHT, fontweight="bold", fontsize=13)
    seconds.invert_yaxis()
    settings = measured["settings"]
    figure.text(
        0.02,
        1 - 0.12 / figure.get_figheight(),
        _title(settings),
        va="top",
        fontsize=13,
        fontweight="bold",
        color=INK,
    )
    figure.text(
        0.02, 0.1 / figure.get_figheight(), _caption(measured), fontsize=8.5, color=FAINT, linespacing=1.35
    )
    figure.savefig(output)


def _height(rows: int) -> float:
    return 1.85 + 0.55 * rows


def _edges(rows: int) -> dict[str, float]:
    """The edges of the axes. The title above and the caption below have a fixed height in inches."""
    height = _height(rows)
    return {"top": 1 - 0.7 / height, "bottom": 0.98 / height}


def _of_peers(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record of `peers`, which a record of `run` contains. Exits for any other record."""
    found = record.get("generate", record)
    if not isinstance(found, Mapping) or not {"settings", "systems", "device", "versions"} <= found.keys():
        raise SystemExit("expected a record of `run` or `peers`")
    return found


def _chosen(systems: Mapping[str, Any], names: Sequence[str] | None) -> list[str]:
    """The systems to draw: sdrt first, then the others by the time of a step."""
    if unknown := [name for name in names or () if name not in systems]:
        raise SystemExit(f"the record has no {unknown[0]}: choose from {', '.join(systems)}")
    return sorted(names or systems, key=lambda name: (name != OURS, systems[name]["step"]["median"]))


def _draw_seconds(axes: Axes, steps: Sequence[Mapping[str, float]], names: Sequence[str]) -> None:
    medians = [step["median"] for step in steps]
    colours = [HIGHLIGHT if SYSTEMS[name].is_ours else PLAIN for name in names]
    axes.barh(range(len(names)), medians, height=0.58, color=colours)
    said = []
    for row, step in enumerate(steps):
        said.append((step["max"], row, f"{step['median']:.3g} s"))
        if step["min"] == step["max"]:
            continue
        axes.plot([step["min"], step["max"]], [row, row], color=INK, linewidth=1.4, solid_capstyle="butt")
        for end in (step["min"], step["max"]):
            axes.plot([end, end], [row - 0.1, row + 0.1], color=INK, linewidth=1.4)
    _finish(axes, "Time per step, seconds", said, names)


def _draw_memory(axes: Axes, systems: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    # Own and resident memory may peak at different times. The light part is the difference of the peaks.
    own = [system["own"]["median"] / GIGABYTE for system in systems]
    whole = [
        max(system["resident"]["median"] / GIGABYTE, held) for system, held in zip(systems, own, strict=True)
    ]
    said = []
    for row, (held, total, name) in enumerate(zip(own, whole, names, strict=True)):
        ours = SYSTEMS[name].is_ours
        axes.barh(row, total, height=0.58, color=HIGHLIGHT_LIGHT if ours else PLAIN_LIGHT)
        axes.barh(row, held, height=0.58, color=HIGHLIGHT if ours else PLAIN)
        mapped = f" + {total - held:.1f} GB mapped" if total - held >= 0.25 else " GB"
        said.append((total, row, f"{held:.1f}{mapped}"))
    _finish(axes, "Peak memory, GB", said, names)


def _say(axes: Axes, end: float, row: int, text: str, name: str) -> None:
    ours = SYSTEMS[name].is_ours
    axes.annotate(
        text,
        (end, row),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=11,
        color=HIGHLIGHT if ours else INK,
        fontweight="bold" if ours else "normal",
    )


def _finish(axes: Axes, title: str, said: Sequence[tuple[float, int, str]], names: Sequence[str]) -> None:
    """Draw the title, the axes and the text beside each bar. `said` has the end of each bar, its row and its text."""
    for end, row, text in said:
        _say(axes, end, row, text, names[row])
    axes.set_title(f"{title} (lower is better)", loc="left", fontsize=11, color=INK, pad=8)
    # Leave room for the longest text.
    axes.set_xlim(0, max(end / (0.96 - 0.031 * len(text)) for end, _, text in said))
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.tick_params(axis="x", labelsize=9.5, colors=FAINT)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(FAINT)


def _title(settings: Mapping[str, Any]) -> str:
    model = {"sd15": "Stable Diffusion 1.5"}.get(settings["architecture"], settings["architecture"])
    device, dtype = {"cpu": ("CPU", "float32"), "cuda": ("GPU", "float16")}[settings["device"]]
    return f"{model}, {settings['size']}×{settings['size']}, {dtype} on the {device}"


def _caption(measured: Mapping[str, Any]) -> str:
    """Three lines: the machine, the measurement and the versions."""
    device, settings, versions = measured["device"], measured["settings"], measured["versions"]
    gpus = "".join(f"{gpu['name']}, driver {gpu['driver']}; " for gpu in device["gpus"])
    numbers = ", ".join(f"{name} {versions[name]}" for name in PACKAGES if name in versions)
    return "\n".join(
        [
            f"{gpus}{device['cpu']}, {device['logical_cores']} cores, {device['memory_bytes'] / 2**30:.0f} GiB; "
            f"Python {device['python']}. Random weights, guidance.",
            f"{_rounds(settings['rounds'])}Light bars: weights mapped from files, which the kernel may drop.",
            f"{numbers}.",
        ]
    )


def _rounds(rounds: int) -> str:
    return (
        "One process each. "
        if rounds == 1
        else f"Medians of {rounds} processes each, lines: minimum to maximum. "
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("chart", __doc__)
    parser.add_argument("record", nargs="?", type=Path, default=RECORD, help="default: cpu-2-cores.json")
    parser.add_argument("--output", "-o", type=Path, default=CHART, help="default: docs/images/peers.png")
    parser.add_argument("--systems", metavar="A,B", help="systems to draw; default: all of the record")
    options = parser.parse_args(arguments)
    try:
        record = json.loads(options.record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{options.record} is not a record of `run` or `peers`: {error}") from None
    draw(record, options.output, options.systems.split(",") if options.systems else None)
    print(options.output)
