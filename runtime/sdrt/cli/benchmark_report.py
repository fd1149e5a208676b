"""What `sdrt benchmark` prints: tables that fit a terminal of 80 columns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sdrt.benchmark.summary import summarise

from .columns import columns

if TYPE_CHECKING:
    from sdrt.benchmark.compare import Comparison, Ratio

__all__ = ["comparison_text", "label", "profile_text", "report"]

Record = Mapping[str, Any]
Measurement = Mapping[str, Any]

_WIDEST = 18
_MOST_OPERATORS = 12
_UNKNOWN = "-"
_VARYING = ("scheduler", "spacing", "provider", "threads", "steps")


def label(settings: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """What tells a configuration from the others: size, batch, and of the rest what varies."""
    words = [f"{settings['width']}x{settings['height']}", f"b{settings['batch']}"]
    for name in _VARYING:
        if len({str(other.get(name)) for other in others}) > 1:
            words.append(_word(name, settings.get(name)))
    return " ".join(words)


def _word(name: str, value: Any) -> str:
    if name == "threads":
        return f"threads {value or 'all'}"
    return f"{value} steps" if name == "steps" else str(value)


def report(record: Record) -> str:
    """All tables of a record, with what stands above and below them."""
    confidence = record["rules"]["confidence"]
    every = [one["settings"] for one in record["measurements"]]
    labels = [label(settings, every) for settings in every]
    names, legend = _names(labels)
    rows = [
        (name, one, summarise(one, confidence))
        for name, one in zip(names, record["measurements"], strict=True)
    ]
    parts = [
        _heading(record, every),
        legend,
        _steps(rows, confidence),
        _parts(rows),
        _phases(rows),
        _memory(rows),
        "\n".join(_placement(rows)),
        _ends(rows),
    ]
    return "\n\n".join(part for part in parts if part)


def _names(labels: Sequence[str]) -> tuple[Sequence[str], str]:
    """What rows are called, and a legend where labels would not leave room for the figures."""
    if max(map(len, labels)) <= _WIDEST:
        return labels, ""
    names = [f"#{number}" for number in range(1, len(labels) + 1)]
    return names, "\n".join(f"{name}: {text}" for name, text in zip(names, labels, strict=True))


Rows = Sequence[tuple[str, Measurement, Mapping[str, Any]]]


def _heading(record: Record, every: Sequence[Mapping[str, Any]]) -> str:
    model, machine = record["model"], record["machine"]
    common = [f"{name} {every[0][name]}" for name in ("steps", "scheduler", "provider") if _same(every, name)]
    if _same(every, "guidance_scale"):
        common.append(f"guidance {every[0]['guidance_scale']:g}")
    if _same(every, "threads"):
        common.append(f"threads {every[0]['threads'] or 'all'}")
    devices = [
        f"{machine['cpu']}, {machine['usable_cores']} cores",
        *(gpu["name"] for gpu in machine["gpus"]),
    ]
    versions = [f"{name} {number}" for name, number in machine["versions"].items() if name in _SHOWN]
    return "\n".join(
        [
            f"{model['name']}, {model['dtype'] or 'unknown precision'}, on {', '.join(devices)}",
            ", ".join(common),
            f"{', '.join(versions)}, Python {machine['python']}",
        ]
    )


_SHOWN = ("sdrt", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "numpy")


def _same(every: Sequence[Mapping[str, Any]], name: str) -> bool:
    return len({str(settings.get(name)) for settings in every}) == 1


def _steps(rows: Rows, confidence: float) -> str:
    head = ("step, ms", "n", "min", "p50", f"{confidence:.0%} interval", "p90", "p99")
    lines: list[Sequence[str]] = [head]
    for name, _, found in rows:
        step = found["step"]
        lines.append(
            (
                name,
                str(step["count"]),
                _ms(step["min"]),
                _ms(step["p50"]),
                _between(step["interval"]),
                _ms(step["p90"]) if step["p90"] is not None else "n < 10",
                _ms(step["p99"]) if step["p99"] is not None else "n < 100",
            )
        )
    return columns(lines, figures=True)


def _between(interval: Sequence[float] | None) -> str:
    return "n < 6" if interval is None else f"{_ms(interval[0])} to {_ms(interval[1])}"


def _parts(rows: Rows) -> str:
    lines: list[Sequence[str]] = [
        ("of which, ms", "U-Net", "guidance", "scheduler", "transfers", "first step", "very first")
    ]
    for name, _, found in rows:
        parts = found["parts"]
        lines.append(
            (
                name,
                *(_ms(parts[part]) for part in ("unet", "guidance", "scheduler", "transfers")),
                _ms(found["first_step"]["p50"]),
                _ms(found["first_step_of_all"]["p50"]),
            )
        )
    return columns(lines, figures=True)


_PHASES = {
    "text_encoder": "text enc.",
    "vae_decoder": "VAE dec.",
    "generation": "all",
    "first_generation": "first all",
    "load": "load",
    "first_picture": "first picture",
}


def _phases(rows: Rows) -> str:
    lines: list[Sequence[str]] = [("generation, s", *_PHASES.values())]
    for name, _, found in rows:
        medians = (found[phase] and found[phase]["p50"] for phase in _PHASES)
        lines.append((name, *(_figure(median) for median in medians)))
    return columns(lines, figures=True)


def _memory(rows: Rows) -> str:
    """Peaks of memory, and the clocks before and after."""
    lines: list[Sequence[str]] = [("peak memory, MB", "own", "resident", "device", "CPU, MHz", "GPU, MHz")]
    for name, one, _ in rows:
        memory = one["memory"]
        sizes = (memory[key] for key in ("own_bytes", "resident_bytes", "device_bytes"))
        cells = (_UNKNOWN if size is None else f"{size / 1e6:.0f}" for size in sizes)
        lines.append((name, *cells, _clock(one["clocks"], _cpu_clock), _clock(one["clocks"], _gpu_clock)))
    return columns(lines, figures=True)


def _clock(clocks: Mapping[str, Any], read: Callable[[Mapping[str, Any]], float | None]) -> str:
    before, after = read(clocks["before"]), read(clocks["after"])
    return _UNKNOWN if before is None or after is None else f"{before:.0f} to {after:.0f}"


def _cpu_clock(clocks: Mapping[str, Any]) -> float | None:
    """The mean over the processors."""
    return statistics.fmean(clocks["cpu_mhz"]) if clocks["cpu_mhz"] else None


def _gpu_clock(clocks: Mapping[str, Any]) -> float | None:
    """The fastest, which is at work."""
    return max((gpu["sm_mhz"] for gpu in clocks["gpus"] if "sm_mhz" in gpu), default=None)


def _placement(rows: Rows) -> Iterator[str]:
    """Once for configurations that agree, which those of a provider do."""
    texts: dict[str, list[str]] = {}
    for name, one, _ in rows:
        texts.setdefault("; ".join(_placed(one["placement"])), []).append(name)
    for text, names in texts.items():
        yield f"nodes{'' if len(texts) == 1 else f' of {names[0]}'}: {text}"


def _placed(placement: Mapping[str, Any]) -> Iterator[str]:
    for component, providers in placement.items():
        if providers is None:
            yield f"{component} not told by this onnxruntime"
            continue
        counts = (f"{sum(nodes.values())} {_short(provider)}" for provider, nodes in providers.items())
        yield f"{component} {', '.join(counts)}"


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


_ENDED = {
    "agreement": "agreed",
    "most generations": "not steady",
    "time limit": "time over",
    "precision": "precise enough",
}


def _ends(rows: Rows) -> str:
    """By which rule warming up and measuring ended, in how many generations, and how wide the interval then was."""
    lines: list[Sequence[str]] = [("rules", "warm-up", "ended", "measured", "ended", "interval")]
    for name, one, found in rows:
        warmup, step = one["warmup"], found["step"]
        width = step["interval"] and (step["interval"][1] - step["interval"][0]) / step["p50"]
        lines.append(
            (
                name,
                str(warmup["generations"]),
                _ENDED[warmup["ended_by"]],
                str(len(one["generations"])),
                _ENDED[one["ended_by"]],
                _UNKNOWN if width is None else f"{width:.1%}",
            )
        )
    return columns(lines, figures=True)


def profile_text(record: Record) -> str:
    """Of each configuration that was profiled, where its steps' time went."""
    every = [one["settings"] for one in record["measurements"]]
    texts = [
        _profile(label(one["settings"], every), one["profile"])
        for one in record["measurements"]
        if one.get("profile")
    ]
    return "\n\n".join(texts)


def _profile(name: str, profile: Mapping[str, Any]) -> str:
    steps, unet = profile["steps"], profile["components"]["unet"]
    step = profile["step_seconds"] / steps
    rows = _by_kind(unet["operators"])
    lines: list[Sequence[str]] = [("operator", "provider", "share", "ms/step", "calls", "ms/call", "GFLOP/s")]
    lines += [_operator(row, steps, step) for row in rows[:_MOST_OPERATORS]]
    if rest := rows[_MOST_OPERATORS:]:
        calls, seconds = (sum(row[key] for row in rest) for key in ("calls", "seconds"))
        lines.append(
            _operator(
                {
                    "operator": f"{len(rest)} others",
                    "provider": "",
                    "calls": calls,
                    "seconds": seconds,
                    "flops": None,
                },
                steps,
                step,
            )
        )
    operators = sum(row["seconds"] for row in rows) / steps
    inside = unet["seconds"] / steps
    for text, seconds in (
        ("U-Net, outside operators", inside - operators),
        ("step, outside the U-Net", step - inside),
        ("step", step),
    ):
        lines.append((text, "", f"{seconds / step:.1%}", _ms(seconds), "", "", ""))
    return f"profile of {name}\n{columns(lines, figures=True)}"


def _by_kind(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of all blocks together, the operator that took longest first."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = row["operator"], row["provider"]
        own = found.setdefault(
            key, {"operator": key[0], "provider": key[1], "calls": 0, "seconds": 0.0, "flops": None}
        )
        own["calls"] += row["calls"]
        own["seconds"] += row["seconds"]
        if row["flops"] is not None:
            own["flops"] = (own["flops"] or 0) + row["flops"]
    return sorted(found.values(), key=lambda row: -row["seconds"])


def _operator(row: Mapping[str, Any], steps: int, step: float) -> tuple[str, ...]:
    seconds, flops = row["seconds"], row["flops"]
    return (
        row["operator"],
        _short(row["provider"]),
        f"{seconds / steps / step:.1%}",
        _ms(seconds / steps),
        f"{row['calls'] / steps:.0f}",
        _ms(seconds / row["calls"]),
        f"{flops / seconds / 1e9:.1f}" if flops and seconds else "",
    )


def comparison_text(names: Sequence[str], comparison: Comparison, confidence: float) -> str:
    """Ratios of the second to the first of two records, then what differs and what has no partner."""
    parts = [f"{names[1]} over {names[0]}: below 1 is faster"]
    every = [pair.settings for pair in comparison.pairs]
    for pair in comparison.pairs:
        head = ("time", "ratio", f"{confidence:.0%} interval", "ms", "was")
        table: list[Sequence[str]] = [head, *(_ratio(name, ratio) for name, ratio in pair.ratios.items())]
        parts.append(f"{label(pair.settings, every)}\n{columns(table, figures=True)}")
    if not comparison.pairs:
        parts.append("no configuration is in both")
    if comparison.differences:
        lines = [f"  {name}: {_shown(was)} -> {_shown(now)}" for name, was, now in comparison.differences]
        parts.append("\n".join(["different:", *lines]))
    for name, alone in zip(names, comparison.without_partner, strict=True):
        if alone:
            parts.append("\n".join([f"only in {name}:", *(f"  {_in_full(settings)}" for settings in alone)]))
    return "\n\n".join(parts)


def _ratio(name: str, ratio: Ratio) -> tuple[str, ...]:
    interval = ratio.interval
    ends = "n < 7" if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"
    return (name, f"{ratio.value:.3f}", ends, _ms(ratio.after), _ms(ratio.before))


def _in_full(settings: Mapping[str, Any]) -> str:
    words = [_word(name, settings.get(name)) for name in _VARYING]
    return f"{settings['width']}x{settings['height']} b{settings['batch']} {' '.join(words)}"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _ms(seconds: float) -> str:
    return _figure(seconds * 1e3)


def _figure(value: float | None) -> str:
    """Four digits at most, but those before the point."""
    if value is None:
        return _UNKNOWN
    for least, digits in ((1000, 0), (100, 1), (1, 2)):
        if abs(value) >= least:
            return f"{value:.{digits}f}"
    return f"{value:.3f}"
