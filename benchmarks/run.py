"""This command runs every benchmark. It writes figures to ``benchmarks/results/`` and tables to the docs.

    python -m benchmarks run --name NAME [--work DIR]

NAME is the device's name in ``results/NAME.json`` and ``results/NAME.md``. The command needs the ``test`` extra, about
30 GB of disk, 16 GB of memory, and a machine that does nothing else for two hours. It lists the systems that this
machine lacks, with the reason; ``--python`` names the environments of those that have one of their own.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sdrt
from benchmarks import export, peers, tables
from benchmarks.bars import met
from benchmarks.command_line import parser_of
from benchmarks.settings import REPEATS, Settings, add_systems, chosen_systems, interpreters
from benchmarks.systems import for_machine
from benchmarks.worker import ROOT

START, END = "<!-- benchmarks:start -->", "<!-- benchmarks:end -->"
_VERSIONED = (
    "onnxruntime",
    "torch",
    "diffusers",
    "transformers",
    "optimum-onnx",
    "onnx",
    "numpy",
)


def _versions() -> dict[str, str]:
    # The metadata of sdrt do not count, because this checkout may not be installed, or another one may be.
    return {"sdrt": sdrt.__version__, **{name: version(name) for name in _VERSIONED}}


def report(figures: dict[str, Any]) -> str:
    """The tables, and notes about the machine and the versions."""
    machine = figures["export"]["device"]
    versions = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    settings = figures["generate"]["settings"]
    memory = machine["memory_bytes"] / 2**30
    notes = (
        f"{machine['cpu']}, {machine['logical_cores']} cores, {memory:.0f} GiB, Python {machine['python']}; random "
        f"weights, guidance, float32 unless a name says otherwise. {figures['export']['rounds']} exports with each, "
        f"and {settings['rounds']} runs of {settings['generations']} warm generations of {settings['steps']} steps, "
        "each in its own process, the systems in turn; brackets hold the ratio to `sdrt` within a round: median, "
        "minimum–maximum. Peak memory is what the system cannot take back; with mapped files, it includes weights in "
        "memory that are the same in their file. `sdrt` imports ONNX Runtime and packs the weights for the CPU when it "
        f"loads; diffusers maps the weights and reads them in its first step. {versions}."
    )
    measured = figures["generate"]
    parts = [export.table(figures["export"]), tables.systems(measured), tables.bars(measured)]
    listed = "\n".join([*tables.missing(measured), *tables.multiplication(measured)])
    return "\n".join([*parts, f"{listed}\n", f"{notes}\n"])


def insert(page: Path, text: str | None) -> None:
    """Put ``text`` between the markers of ``page``. With None, only check that they exist."""
    content = page.read_text(encoding="utf-8")
    before, _, rest = content.partition(START)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{page} lacks the markers {START} and {END}")
    if text is not None:
        page.write_text(f"{before}{START}\n{text}{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("run", __doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--size", type=int, default=512)
    for key, usual in REPEATS["cpu"].items():
        parser.add_argument(f"--{key}", type=int, default=usual, help=f"default: {usual}")
    parser.add_argument("--export-rounds", type=int, default=2)
    add_systems(parser, "systems to compare; default: all that run on the CPU")
    options = parser.parse_args(arguments)
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    # Check the markers now, and not after half an hour.
    insert(ROOT / "docs" / "benchmark-results.md", None)
    settings = Settings(
        size=options.size,
        steps=options.steps,
        generations=options.generations,
        rounds=options.rounds,
        names=chosen_systems(options.systems, for_machine("cpu")),
        pythons=interpreters(options.python),
    )
    figures: dict[str, Any] = {"versions": _versions()}
    with tempfile.TemporaryDirectory() as scratch:
        work = (options.work or Path(scratch)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        stages: dict[str, Callable[[], dict[str, Any]]] = {
            "export": lambda: export.compare(
                work, export.ExportSettings(rounds=options.export_rounds, names=("sdrt", "optimum"))
            ),
            "generate": lambda: peers.compare(work, settings),
        }
        for stage, measure in stages.items():
            figures[stage] = measure()
            (results / f"{options.name}.json").write_text(
                json.dumps(figures, indent=2) + "\n", encoding="utf-8"
            )
    (results / f"{options.name}.md").write_text(report(figures), encoding="utf-8")
    insert(ROOT / "docs" / "benchmark-results.md", report(figures))
    print(report(figures))
    if not met(figures["export"]):
        raise SystemExit("the export misses a goal")
