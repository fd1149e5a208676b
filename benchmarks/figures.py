"""Turns measurements into figures: spreads, ratios within a round, and the share of the device's arithmetic.

A turn is a dict of figures from one process of one system. A round is a dict of turns by system.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measure import spread
from benchmarks.systems import OURS

__all__ = ["BYTES", "FIGURES", "differences", "ratios", "reached", "spreads"]

MULTIPLY_ADDS = {("sd15", 512): 401.6e9}
"""Multiply-adds of one U-Net evaluation for one row, by architecture and size. Others were not counted."""
ROWS = 2  # with guidance
TIMES = ("import", "load", "first_picture", "first_step", "step", "decode", "generation")
BYTES = ("own", "resident", "device")
FIGURES = (*TIMES, *BYTES, "outside_unet")


def ratios(turn: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """System → figure → ratio to sdrt's figure, within a round."""
    if OURS not in turn:
        return {}
    own = turn[OURS]
    return {
        name: {key: row[key] / own[key] for key in FIGURES if key in row and own.get(key)}
        for name, row in turn.items()
    }


def spreads(turns: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, dict[str, float]]]:
    """System → figure → minimum, median and maximum over the rounds; for a step, over all generations."""
    found: dict[str, dict[str, list[float]]] = {}
    for turn in turns:
        for name, row in turn.items():
            single = {key: [row[key]] for key in FIGURES if key in row}
            for key, values in (single | ({"step": row["steps"]} if "steps" in row else {})).items():
                found.setdefault(name, {}).setdefault(key, []).extend(values)
    return {name: {key: spread(values) for key, values in row.items()} for name, row in found.items()}


def differences(turns: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """System → largest difference of its thumbnail from sdrt's, in levels of 255, which shows equal work."""
    worst: dict[str, int] = {}
    for turn in [turn for turn in turns if OURS in turn]:
        levels = {name: bytes.fromhex(row["thumbnail"]) for name, row in turn.items()}
        for name, drawn in levels.items():
            difference = max(abs(a - b) for a, b in zip(drawn, levels[OURS], strict=True))
            worst[name] = max(worst.get(name, 0), difference)
    return worst


def reached(
    architecture: str, size: int, peaks: Sequence[float], turns: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """TFLOP/s of matrix multiplication, and of a step of every system if its work is counted."""
    best = max(peaks, default=None)
    work = MULTIPLY_ADDS.get((architecture, size))
    systems = {}
    for name, row in spreads(turns).items():
        if work is None:
            continue
        tflops = 2 * work * ROWS / row["step"]["median"] / 1e12
        systems[name] = {"tflops": tflops, "share": tflops / best if best else None}
    return {"counted": work is not None, "multiplication_tflops": best, "systems": systems}
