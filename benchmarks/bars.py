"""The goals of sdrt: ratios to other systems within one run, and whether a run meets them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "BARS",
    "DIRECT",
    "EXPORT",
    "HOLDS_FOR",
    "INT8_FASTER",
    "INT8_MEMORY",
    "STEP",
    "Bar",
    "judge",
    "judge_browser",
    "judge_control",
    "judge_direct",
    "judge_export",
    "judge_lora",
    "judge_processes",
    "judge_serve",
    "judge_start",
    "judge_step",
    "met",
]

SERVE = (
    ("start_seconds", "at most 1.5 s", 1.5, -1),
    ("overhead_median_ms", "at most 3 ms", 3.0, -1),
    ("overhead_p99_ms", "at most 10 ms", 10.0, -1),
    ("cancel_ms", "at most 100 ms", 100.0, -1),
    ("throughput", "at least 0.95 of the pipeline alone", 0.95, 1),
    ("memory_drift", "at most 2 %", 0.02, -1),
    ("lost", "none", 0.0, -1),
)
"""The goals of the server: figure, in words, limit, and whether more is better (1) or less (-1)."""
BROWSER = (
    ("warm_ratio", "at most 3x sdrt's time on the same cores", 3.0, -1),
    ("first_seconds", "at most 10 s", 10.0, -1),
)
"""The goals of a bundle in the browser, on WebAssembly, in the same form."""
Turn = Mapping[str, Mapping[str, float]]
"""One round: system → figure → value."""
_OURS = ("sdrt", "sdrt-cuda-graph")
HOLDS_FOR = "SD 1.5's architecture at 512x512"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One goal.

    `what` is its name, and `figure` the name of a figure of a system in a round. `kind` says what is compared with
    `limit`:

    - "faster": a peer's figure over ours, at least `limit`;
    - "share": our figure over a peer's, at most `limit`;
    - "own": our figure alone, a share, at most `limit`;
    - "bytes": our figure alone, in bytes, at most `limit`.

    Of several `peers`, the best one counts. `of` lists our systems that have this goal.
    """

    what: str
    figure: str
    kind: str
    limit: float
    peers: tuple[str, ...] = ()
    of: tuple[str, ...] = _OURS


INT8_FASTER, INT8_MEMORY = 1.1, 0.5
"""The goals of int8: a step against OpenVINO in bfloat16, and peak memory against float32."""
_INT8 = ("sdrt-int8",)
_COMPILED = ("diffusers-compile", "diffusers-max-autotune")


def _step(against: str, limit: float, *peers: str, of: tuple[str, ...] = _OURS) -> Bar:
    return Bar(
        what=f"step time, against {against}", figure="step", kind="faster", limit=limit, peers=peers, of=of
    )


def _memory(limit: float, peer: str, of: tuple[str, ...] = _OURS) -> Bar:
    return Bar(what="own peak memory", figure="own", kind="share", limit=limit, peers=(peer,), of=of)


def _cpu_time(limit: float, peer: str) -> Bar:
    return Bar(
        what=f"CPU time, against {peer}", figure="cpu_seconds", kind="faster", limit=limit, peers=(peer,)
    )


def _bytes(limit: float) -> Bar:
    return Bar(what="own peak memory", figure="own_bytes", kind="bytes", limit=limit)


BARS: Mapping[str, tuple[Bar, ...]] = {
    "cuda": (
        _step("torch.compile", 1.3, *_COMPILED),
        _step("diffusers eager", 2.0, "diffusers"),
        Bar(what="share of the loop outside the U-Net", figure="outside_unet", kind="own", limit=0.03),
        Bar(what="peak device memory", figure="device", kind="share", limit=0.8, peers=("diffusers",)),
        Bar(
            what="first image from process start",
            figure="first_picture",
            kind="faster",
            limit=3.0,
            peers=("diffusers",),
        ),
    ),
    "cpu": (
        _step("optimum", 1.0, "optimum"),
        _step("diffusers eager", 1.0, "diffusers"),
        _memory(0.6, "optimum"),
        _step("OpenVINO in bf16", INT8_FASTER, "openvino-bf16", of=_INT8),
        _memory(INT8_MEMORY, "sdrt", of=_INT8),
    ),
}
EXPORT: Mapping[tuple[str, str], tuple[Bar, ...]] = {
    ("sd15", "folder"): (_cpu_time(8.0, "0.1.0"), _cpu_time(30.0, "optimum"), _bytes(0.3e9)),
    ("sdxl", "single"): (_bytes(0.5e9),),
}
"""The goals of an export, by architecture and kind of source."""
STEP = Bar(
    what="step of the U-Net's graph, against 0.1.0's",
    figure="step",
    kind="share",
    limit=1.03,
    peers=("0.1.0",),
)
"""The goal of the graphs that an export writes."""
DIRECT = Bar(what="time to the first step", figure="seconds", kind="share", limit=1.3, peers=("exported",))
"""The goal of a checkpoint that runs directly."""
LORA = (
    Bar(what="time to change a LoRA", figure="seconds", kind="share", limit=1.3, peers=("anew",)),
    Bar(what="more memory, in sets of the changed weights", figure="memory", kind="own", limit=1.0),
)
"""The goals of a change of the LoRA, against loading the U-Net anew."""
START = (
    Bar(what="time to start", figure="seconds", kind="faster", limit=5, peers=("0.1.0",)),
    Bar(
        what="time to start, against diffusers",
        figure="seconds",
        kind="faster",
        limit=1,
        peers=("diffusers",),
    ),
    Bar(what="own memory", figure="own_bytes", kind="share", limit=0.35, peers=("0.1.0",)),
)
"""The goals of a tuned model, against 0.1.0."""
_ACCELERATED = {20: {"balanced": 1.9, "fast": 2.8}, 50: {"balanced": 2.8, "fast": 4.0}}
"""How much sooner a whole image is there with fewer calls, against 0.1.0, by the number of steps."""
_WHOLE = 512
CONTROL = Bar(
    what="a step with a ControlNet",
    figure="step",
    kind="share",
    limit=1.05,
    peers=("both parts",),
)
"""The goal of a ControlNet, against a plain step and the ControlNet alone."""
PROCESSES = Bar(
    what="memory of several processes",
    figure="shared_bytes",
    kind="share",
    limit=2.0,
    peers=("one process",),
)
"""The goal of four processes that serve one tuned model, against one."""
_SENTENCES = {
    "faster": "at least {limit:g}x as fast as {peers}",
    "share": "at most {limit:g}x that of {peers}",
    "own": "at most {limit:.0%}",
    "bytes": "at most {limit:,.0f} bytes",
}


def judge(device: str, ours: str, turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Every goal of the system `ours`: its text, its figure (None if it was not measured) and the verdict."""
    return [_judge(bar, ours, turns) for bar in BARS[device] if ours in bar.of]


def judge_export(architecture: str, source: str, turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Every goal of sdrt's export of an architecture, as `judge` gives them."""
    return [_judge(bar, "sdrt", turns) for bar in EXPORT.get((architecture, source), ())]


def judge_step(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The goal of the U-Net's graph, as `judge` gives it."""
    return [_judge(STEP, "sdrt", turns)]


def judge_direct(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The goal of each kind of checkpoint that runs directly, as `judge` gives them."""
    return [_judge(DIRECT, name, turns) for name in ("folder", "single")]


def judge_start(turns: Sequence[Turn], *, whole: tuple[int, int] | None = None) -> list[dict[str, Any]]:
    """The goals of a tuned exported folder, as `judge` gives them.

    `whole` is the side and the steps of a whole image, which has goals with fewer calls at 512x512.
    """
    side, steps = whole or (0, 0)
    # An image of many steps says nothing about how soon the first step begins.
    goals = [bar for bar in START if steps <= 1 or bar.kind != "faster"]
    found = [_judge(bar, "exported-tuned", turns) for bar in goals]
    for name, limit in _ACCELERATED.get(steps, {}).items() if side == _WHOLE else ():
        bar = Bar(
            what=f"time of {steps} steps", figure="seconds", kind="faster", limit=limit, peers=("0.1.0",)
        )
        found.append(_judge(bar, name, turns))
    return found


def judge_lora(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The goals of a LoRA that is added, and of one that is changed, as `judge` gives them."""
    return [_judge(bar, name, turns) for name in ("added", "changed") for bar in LORA]


def judge_control(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The goal of a step with a ControlNet, as `judge` gives it."""
    return [_judge(CONTROL, "step with it", turns)]


def judge_processes(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The goal of processes that share a model, as `judge` gives them."""
    return [_judge(PROCESSES, "together", turns)]


def judge_serve(figures: Mapping[str, float]) -> list[dict[str, Any]]:
    """The goals of the server."""
    return _judge_figures("sdrt serve", SERVE, figures)


def judge_browser(
    turns: Sequence[Turn], firsts: Mapping[str, Sequence[Mapping[str, float]]]
) -> list[dict[str, Any]]:
    """The goals of a bundle in the browser, if it ran on WebAssembly. `firsts` are the figures of first images."""
    if "wasm" not in firsts:
        return []
    figures = {
        "warm_ratio": statistics.median(turn["wasm"]["warm"] / turn["sdrt"]["warm"] for turn in turns),
        "first_seconds": statistics.median(one["first"] for one in firsts["wasm"]),
    }
    return _judge_figures("wasm", BROWSER, figures)


def _judge_figures(
    system: str, goals: Sequence[tuple[str, str, float, int]], figures: Mapping[str, float]
) -> list[dict[str, Any]]:
    found = []
    for figure, wanted, limit, sign in goals:
        value = figures[figure]
        is_met = value >= limit if sign > 0 else abs(value) <= limit
        verdict = "met" if is_met else "NOT met"
        found.append({"system": system, "bar": figure, "wanted": wanted, "figure": value, "verdict": verdict})
    return found


def _judge(bar: Bar, ours: str, turns: Sequence[Turn]) -> dict[str, Any]:
    figure = _own(bar, ours, turns) if bar.kind in ("own", "bytes") else _beside(bar, ours, turns)
    verdict = "not measured"
    if figure is not None:
        verdict = "met" if _reaches(bar, figure) else "NOT met"
    peers = " or ".join(bar.peers)
    wanted = _SENTENCES[bar.kind].format(limit=bar.limit, peers=peers)
    return {"system": ours, "bar": bar.what, "wanted": wanted, "figure": figure, "verdict": verdict}


def _reaches(bar: Bar, figure: float) -> bool:
    return figure >= bar.limit if bar.kind == "faster" else figure <= bar.limit


def _own(bar: Bar, ours: str, turns: Sequence[Turn]) -> float | None:
    values = [turn[ours][bar.figure] for turn in turns if bar.figure in turn.get(ours, {})]
    return statistics.median(values) if values else None


def _beside(bar: Bar, ours: str, turns: Sequence[Turn]) -> float | None:
    """The median ratio over the rounds to the peer that did best."""
    ratios = [_ratio(bar, ours, peer, turns) for peer in bar.peers]
    found = [ratio for ratio in ratios if ratio is not None]
    best: Callable[[Sequence[float]], float] = min if bar.kind == "faster" else max
    return best(found) if found else None


def _ratio(bar: Bar, ours: str, peer: str, turns: Sequence[Turn]) -> float | None:
    pairs = [
        (turn[ours][bar.figure], turn[peer][bar.figure])
        for turn in turns
        if all(bar.figure in turn.get(name, {}) for name in (ours, peer))
    ]
    if bar.kind == "faster":
        pairs = [(theirs, mine) for mine, theirs in pairs]
    return statistics.median(above / below for above, below in pairs) if pairs else None


def met(figures: Mapping[str, Any]) -> bool:
    """Whether every goal among the `bars` of `figures` that was measured is met."""
    return all(bar["verdict"] != "NOT met" for bar in figures["bars"])
