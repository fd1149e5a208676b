"""The tables that `sdrt benchmark` prints. They fit a terminal of 80 columns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sdrt.benchmark.summary import summarise
from sdrt.cli.benchmark.labels import UNKNOWN, figure, label, ms, short
from sdrt.cli.tables import columns
from sdrt.common.visible import visible

__all__ = ["report"]

Record = Mapping[str, Any]
Measurement = Mapping[str, Any]

_WIDEST = 18


def report(record: Record) -> str:
    """The heading, the legend and all tables of a record."""
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
        _placement(rows),
        _ends(rows),
    ]
    return "\n\n".join(part for part in parts if part)


def _names(labels: Sequence[str]) -> tuple[Sequence[str], str]:
    """The names of the rows, and a legend if the labels would leave no room for the figures."""
    if max(map(len, labels)) <= _WIDEST:
        return labels, ""
    names = [f"#{number}" for number in range(1, len(labels) + 1)]
    return names, "\n".join(f"{name}: {text}" for name, text in zip(names, labels, strict=True))


Rows = Sequence[tuple[str, Measurement, Mapping[str, Any]]]


def _models(record: Record, usual: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each provider has its own export of the model. The first value names the provider where the exports differ."""
    found = {one["settings"]["provider"]: one.get("model", usual) for one in record["measurements"]}
    same = len({str(model) for model in found.values()}) < 2
    for provider, model in found.items():
        yield "" if same else f"{provider}: ", model


def _heading(record: Record, every: Sequence[Mapping[str, Any]]) -> str:
    model, machine = record["model"], record["machine"]
    common = [f"{name} {every[0][name]}" for name in ("steps", "scheduler", "provider") if _same(every, name)]
    if _same(every, "guidance_scale"):
        common.append(f"guidance {every[0]['guidance_scale']:g}")
    if _same(every, "threads"):
        common.append(f"threads {every[0]['threads'] or 'all'}")
    # These are equal in all configurations. Old records do not have them.
    common += [f"{key}={value}" for key, value in every[0].get("provider_options", {}).items()]
    common += ["low VRAM"] if every[0].get("low_vram") else []
    devices = [
        f"{machine['cpu']}, {machine['usable_cores']} cores",
        *(gpu["name"] for gpu in machine["gpus"]),
    ]
    versions = [f"{name} {number}" for name, number in machine["versions"].items() if name in _SHOWN]
    models = dict.fromkeys(f"{name}{_model_text(one)}" for name, one in _models(record, model))
    return "\n".join(
        [
            f"{'; '.join(models)}, on {', '.join(devices)}",
            ", ".join(common),
            f"{', '.join(versions)}, Python {machine['python']}",
        ]
    )


def _model_text(model: Mapping[str, Any]) -> str:
    """The name, precision and target of a model."""
    made_for = f" for {model['target']}" if model.get("target") else ""
    return visible(f"{model['name']}, {model['dtype'] or 'unknown precision'}{made_for}")


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
                ms(step["min"]),
                ms(step["p50"]),
                _between(step["interval"]),
                ms(step["p90"]) if step["p90"] is not None else "n < 10",
                ms(step["p99"]) if step["p99"] is not None else "n < 100",
            )
        )
    return columns(lines, figures=True)


def _between(interval: Sequence[float] | None) -> str:
    return "n < 6" if interval is None else f"{ms(interval[0])} to {ms(interval[1])}"


def _parts(rows: Rows) -> str:
    lines: list[Sequence[str]] = [
        ("of which, ms", "U-Net", "guidance", "scheduler", "transfers", "first step", "very first")
    ]
    for name, _, found in rows:
        parts = found["parts"]
        lines.append(
            (
                name,
                *(ms(parts[part]) for part in ("unet", "guidance", "scheduler", "transfers")),
                ms(found["first_step"]["p50"]),
                ms(found["first_step_of_all"]["p50"]),
            )
        )
    return columns(lines, figures=True)


_PHASES = {
    "text_encoder": "text enc.",
    "vae_decoder": "VAE dec.",
    "generation": "all",
    "first_generation": "first all",
    "load": "load",
    "first_picture": "first image",
}


def _phases(rows: Rows) -> str:
    lines: list[Sequence[str]] = [("generation, s", *_PHASES.values())]
    for name, _, found in rows:
        medians = (found[phase] and found[phase]["p50"] for phase in _PHASES)
        lines.append((name, *(figure(median) for median in medians)))
    return columns(lines, figures=True)


def _memory(rows: Rows) -> str:
    """Peak memory, and the clocks before and after."""
    lines: list[Sequence[str]] = [("peak memory, MB", "own", "resident", "device", "CPU, MHz", "GPU, MHz")]
    for name, one, _ in rows:
        memory = one["memory"]
        sizes = (memory[key] for key in ("own_bytes", "resident_bytes", "device_bytes"))
        cells = (UNKNOWN if size is None else f"{size / 1e6:.0f}" for size in sizes)
        lines.append((name, *cells, _clock(one["clocks"], _cpu_clock), _clock(one["clocks"], _gpu_clock)))
    return columns(lines, figures=True)


def _clock(clocks: Mapping[str, Any], read: Callable[[Mapping[str, Any]], float | None]) -> str:
    before, after = read(clocks["before"]), read(clocks["after"])
    return UNKNOWN if before is None or after is None else f"{before:.0f} to {after:.0f}"


def _cpu_clock(clocks: Mapping[str, Any]) -> float | None:
    """The mean over the processors, in MHz."""
    return statistics.fmean(clocks["cpu_mhz"]) if clocks["cpu_mhz"] else None


def _gpu_clock(clocks: Mapping[str, Any]) -> float | None:
    """The fastest GPU clock in MHz: that of the GPU at work."""
    return max((gpu["sm_mhz"] for gpu in clocks["gpus"] if "sm_mhz" in gpu), default=None)


def _placement(rows: Rows) -> str:
    """Nodes by provider. Configurations with the same table share it."""
    tables: dict[str, list[str]] = {}
    for name, one, _ in rows:
        tables.setdefault(_placed(one["placement"]), []).append(name)
    if len(tables) == 1:
        return next(iter(tables))
    return "\n\n".join(f"{', '.join(names)}:\n{table}" for table, names in tables.items())


def _placed(placement: Mapping[str, Mapping[str, Mapping[str, int]] | None]) -> str:
    told = {name: providers or {} for name, providers in placement.items()}
    every = list(dict.fromkeys(provider for providers in told.values() for provider in providers))
    lines: list[Sequence[str]] = [("nodes", *map(short, every))]
    lines += [
        (name, *(str(sum(nodes.get(one, {}).values())) for one in every)) for name, nodes in told.items()
    ]
    return columns(lines, figures=True) if every else "nodes: this onnxruntime does not report where they run"


_END_REASONS = {
    "agreement": "agreed",
    "most generations": "not steady",
    "time limit": "time over",
    "precision": "precise enough",
}


def _ends(rows: Rows) -> str:
    """The rule that ended warming up and measuring, the number of generations, and the width of the interval."""
    lines: list[Sequence[str]] = [("rules", "warm-up", "ended", "measured", "ended", "interval")]
    for name, one, found in rows:
        warmup, step = one["warmup"], found["step"]
        width = step["interval"] and (step["interval"][1] - step["interval"][0]) / step["p50"]
        lines.append(
            (
                name,
                str(warmup["generations"]),
                _END_REASONS[warmup["ended_by"]],
                str(len(one["generations"])),
                _END_REASONS[one["ended_by"]],
                UNKNOWN if width is None else f"{width:.1%}",
            )
        )
    return columns(lines, figures=True)
