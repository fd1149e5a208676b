"""This command measures what it costs to change a LoRA, beside loading the U-Net anew.

    python -m benchmarks lora [--work DIR] [--rounds 3] [--architecture sd15] [--rank 32] [--convolutions]

All start from random weights, as an exported folder (float32) and as the checkpoint itself. A turn is three processes:
one loads the U-Net twice, one loads it and then with a LoRA, and one changes from a LoRA to another. Only the last
loading of each is timed; the peak of its own memory is that of the whole process. Before each process, the files are in
the page cache, and the benchmark writes to most of the free memory, as in `direct.py`. Every round begins with another
one; ratios are taken within a round. No process may write a file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import in_turn, worker
from benchmarks.bars import judge_lora
from benchmarks.command_line import conclude, parser_of
from benchmarks.folders import checkpoint, make
from benchmarks.measure import device, run, touch_free_memory
from benchmarks.settings import say
from sdrt import StableDiffusionPipeline
from sdrt_export.checkpoints.safetensors_writer import write_safetensors

__all__ = ["compare", "main", "table", "write_lora"]

ANEW, ADDED, CHANGED = "anew", "added", "changed"
EXPORTED, FOLDER = "exported", "checkpoint"
FIGURES = {"cpu_seconds": "CPU time", "seconds": "time", "own_bytes": "peak memory"}


def compare(work: Path, options: Any) -> dict[str, Any]:
    """Run the processes in turn. The models and LoRAs stay in `work`."""
    log = work / "log.txt"
    folder = checkpoint(work, log, options.architecture)
    model = folder
    if options.model == EXPORTED:
        model = make(
            "sdrt", work, log, device="cpu", architecture=options.architecture, python=sys.executable
        )
    rank, convolutions = options.rank, options.convolutions
    loras = [
        write_lora(folder, work / f"lora-{seed}.safetensors", rank=rank, convolutions=convolutions, seed=seed)
        for seed in (1, 2)
    ]
    _turn(ANEW, model, loras, work, log)  # this first run checks the hashes
    turns: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds):
        names = (ANEW, ADDED, CHANGED)
        order = [*names[number % 3 :], *names[: number % 3]]
        turns.append({name: _turn(name, model, loras, work, log) for name in order})
    return _record(options, turns)


def write_lora(model: Path, path: Path, *, rank: int, convolutions: bool, seed: int) -> Path:
    """Write a LoRA of noise as kohya's trainer does, for the U-Net's attention and, if asked for, its resnets."""
    shapes = StableDiffusionPipeline.from_pretrained(model, provider="cpu").model.parameters("unet")
    parts: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        kinds = (".attentions.", *((".resnets.", "samplers.") if convolutions else ()))
        if name.endswith(".weight") and len(shape) > 1 and any(kind in name for kind in kinds):
            key = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
            parts[f"{key}.lora_down.weight"] = (rank, *shape[1:])
            parts[f"{key}.lora_up.weight"] = (shape[0], rank, *(1 for _ in shape[2:]))
    source = np.random.default_rng(seed)

    def draw(name: str) -> Any:
        return source.standard_normal(parts[name], np.float32) * np.float32(0.01)

    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    write_safetensors(path, parts, draw)
    return path


def _turn(name: str, model: Path, loras: Sequence[Path], work: Path, log: Path) -> dict[str, float]:
    for path in [path for path in model.rglob("*") if path.is_file()]:
        with path.open("rb") as stream:
            while stream.read(1 << 24):
                pass
    touch_free_memory()
    given = {ANEW: [], ADDED: loras[:1], CHANGED: loras}[name]
    variables = {**worker.environment(), "SDRT_CACHE": os.fspath(work / "cache")}
    before = _files(work)
    done = run([*worker.command(sys.executable, "lora_change"), model, *given], log, environment=variables)
    written = [one for one in _files(work) - before if "cache" not in one.parts]
    if written:
        raise SystemExit(f"{name}: wrote {written[0]}")
    figures = {**done.result, "own_bytes": done.own_bytes}
    say(
        f"{name}: {figures['cpu_seconds']:.2f} s of CPU time, {figures['seconds']:.2f} s, {done.own_bytes / 1e9:.2f} GB"
    )
    return figures


def _files(work: Path) -> set[Path]:
    return {path.relative_to(work) for path in work.rglob("*") if path.is_file()}


def _record(options: Any, turns: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    names = (ANEW, ADDED, CHANGED)
    own = [
        {name: {**turn[name], "memory": _more(turn[name], turn[ANEW])} for name in names} for turn in turns
    ]
    return {
        "architecture": f"{options.architecture}, random weights, {options.model}",
        "rounds": len(turns),
        "turns": list(turns),
        "changed_bytes": turns[0][ADDED]["changed_bytes"],
        "systems": in_turn.spreads(turns, tuple(FIGURES)),
        "ratios": in_turn.ratios(turns, tuple(FIGURES), ANEW),
        "bars": judge_lora(own),
        "device": device(),
    }


def _more(figures: Mapping[str, float], plain: Mapping[str, float]) -> float:
    """How much more memory a change takes than the U-Net alone, in sets of the changed weights."""
    size = figures["changed_bytes"]
    return (figures["own_bytes"] - plain["own_bytes"]) / size if size else 0.0


def table(figures: Mapping[str, Any]) -> str:
    """Medians, in brackets the ratio to loading anew with its spread; then the goals."""
    changed = f"{figures['changed_bytes'] / 1e6:.0f} MB of changed weights"
    title = f"The U-Net of {figures['architecture']}, {changed}"
    return in_turn.table(figures, title, FIGURES, ANEW, of="ratios", digits=2)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("lora", __doc__)
    parser.add_argument(
        "--work", type=Path, help="keep the models here (about 7 GB); default: a temporary folder"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--architecture", default="sd15", help="default: sd15")
    parser.add_argument("--model", choices=(EXPORTED, FOLDER), default=EXPORTED, help="default: %(default)s")
    parser.add_argument("--rank", type=int, default=32, help="of the LoRAs; default: %(default)s")
    parser.add_argument("--convolutions", action="store_true", help="change the resnets' convolutions too")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    conclude(options, lambda work: compare(work, options), table)
