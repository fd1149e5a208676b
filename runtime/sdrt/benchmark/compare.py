"""Compares two records: matches their configurations, and computes the ratios of their times."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdrt.benchmark.stats import Interval, ratio_interval
from sdrt.benchmark.summary import steady_steps
from sdrt.benchmark.timed_generation import PARTS

__all__ = ["FIGURES", "Comparison", "Pair", "Ratio", "compare"]

Record = Mapping[str, Any]
Measurement = Mapping[str, Any]
Samples = Callable[[Measurement], Sequence[float]]

# These decide how much work a step is. Configurations match only if they are equal.
_WORK = ("width", "height", "batch", "guidance_scale")
_OF_MODEL = ("name", "target", "dtype", "exporter", "manifest_sha256")
_OF_MACHINE = ("cpu", "usable_cores", "cgroup_cpu_limit", "governor", "system", "python")


def _of_part(part: str) -> Samples:
    return lambda one: [step[part] for step in steady_steps(one)]


FIGURES: Mapping[str, Samples] = {
    "step": lambda one: [step["wall"] for step in steady_steps(one)],
    **{"U-Net" if part == "unet" else part: _of_part(part) for part in PARTS},
    "first step": lambda one: [generation["steps"][0]["wall"] for generation in one["generations"]],
    "text encoder": lambda one: [generation["text_encoder"] for generation in one["generations"]],
    "VAE": lambda one: [generation["vae_decoder"] for generation in one["generations"]],
    "generation": lambda one: [generation["total"] for generation in one["generations"]],
    "load": lambda one: [one["load"]],
    "first image": lambda one: one["first_pictures"],
}
"""Name of a figure → the function that returns its samples in a measurement, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Two medians in seconds, and the interval of their ratio; None with too few samples."""

    before: float
    after: float
    interval: Interval | None

    @property
    def value(self) -> float:
        """The second median over the first."""
        return self.after / self.before


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A configuration that is in both records, and its ratios by the names in `FIGURES`."""

    settings: Mapping[str, Any]
    ratios: Mapping[str, Ratio]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of a comparison.

    `differences` are (name, first value, second value): settings that have one value throughout each record and do not
    change the work of a step, and differences between models and machines. `without_partner` has the settings of the
    configurations without a match, of the first and of the second record.
    """

    pairs: tuple[Pair, ...]
    differences: tuple[tuple[str, Any, Any], ...]
    without_partner: tuple[tuple[Mapping[str, Any], ...], tuple[Mapping[str, Any], ...]]


def compare(first: Record, second: Record) -> Comparison:
    """Match configurations by their settings. Settings with one value throughout each record may differ.

    So the same sizes on two providers match, and the provider is a difference. Two sizes never match.
    """
    differing = [name for name in _settings_names(first, second) if _is_difference(name, first, second)]
    ours, theirs = (_by_key(record, differing) for record in (first, second))
    confidence = min(record["rules"]["confidence"] for record in (first, second))
    pairs = [_pair(ours[key], theirs[key], confidence) for key in ours if key in theirs]
    settings = [(name, _only(first, name), _only(second, name)) for name in differing if ours and theirs]
    return Comparison(
        pairs=tuple(pairs),
        differences=(*settings, *_differences(first, second)),
        without_partner=(
            tuple(one["settings"] for key, one in ours.items() if key not in theirs),
            tuple(one["settings"] for key, one in theirs.items() if key not in ours),
        ),
    )


def _settings_names(*records: Record) -> list[str]:
    return list(
        dict.fromkeys(
            name for record in records for one in record["measurements"] for name in one["settings"]
        )
    )


def _is_difference(name: str, first: Record, second: Record) -> bool:
    if name in _WORK:
        return False
    values = [_values(record, name) for record in (first, second)]
    return all(len(found) == 1 for found in values) and values[0] != values[1]


def _values(record: Record, name: str) -> set[str]:
    # An old record lacks newer settings, and used their defaults.
    return {json.dumps(one["settings"].get(name) or None, sort_keys=True) for one in record["measurements"]}


def _only(record: Record, name: str) -> Any:
    return record["measurements"][0]["settings"].get(name)


def _by_key(record: Record, ignored: Sequence[str]) -> dict[str, Measurement]:
    found = {}
    for one in record["measurements"]:
        settings = {name: value for name, value in one["settings"].items() if value and name not in ignored}
        found[json.dumps(settings, sort_keys=True)] = one
    return found


def _pair(first: Measurement, second: Measurement, confidence: float) -> Pair:
    ratios = {}
    for name, samples in FIGURES.items():
        before, after = samples(first), samples(second)
        if before and after and statistics.median(before) > 0:
            ratios[name] = Ratio(
                before=statistics.median(before),
                after=statistics.median(after),
                interval=ratio_interval(after, before, confidence),
            )
    return Pair(settings=second["settings"], ratios=ratios)


def _differences(first: Record, second: Record) -> Iterator[tuple[str, Any, Any]]:
    groups = (("model", _OF_MODEL), ("machine", _OF_MACHINE))
    for group, names in groups:
        for name in names:
            values = [record[group].get(name) for record in (first, second)]
            if values[0] != values[1]:
                yield f"{group} {name}", values[0], values[1]
    gpus = [[gpu.get("name") for gpu in record["machine"]["gpus"]] for record in (first, second)]
    if gpus[0] != gpus[1]:
        yield "GPUs", gpus[0], gpus[1]
    versions = [record["machine"]["versions"] for record in (first, second)]
    for name in sorted(versions[0].keys() | versions[1].keys()):
        if versions[0].get(name) != versions[1].get(name):
            yield name, versions[0].get(name), versions[1].get(name)
