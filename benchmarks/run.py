"""Every benchmark in one go; the figures go to ``benchmarks/results/`` and the tables into docs/benchmark-results.md.

    python benchmarks/run.py --name NAME [--work DIR]

NAME is the device's: ``results/NAME.json`` and ``results/NAME.md`` are written. Needs the ``test`` extra, about
30 GB of disk and 16 GB of memory, and a machine that does nothing else for two hours. Systems that this machine lacks
are listed with the reason; ``--python`` names the environments of those that have one of their own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import export
import peers
import tables
from settings import REPEATS, Settings, add_systems, chosen_systems, interpreters
from systems import for_machine

import sdrt

ROOT = Path(__file__).parent.parent
START, END = "<!-- benchmarks:start -->", "<!-- benchmarks:end -->"
_VERSIONED = (
    "onnxruntime",
    "torch",
    "diffusers",
    "transformers",
    "optimum-onnx",
    "onnx",
    "onnxscript",
    "numpy",
)


def _versions() -> dict[str, str]:
    # Of sdrt not from metadata: this checkout may not be installed, and another one may be.
    return {"sdrt": sdrt.__version__, **{name: version(name) for name in _VERSIONED}}


def report(figures: dict[str, Any]) -> str:
    """The tables, and under them what they were measured on."""
    machine = figures["export"]["device"]
    versions = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    settings = figures["generate"]["settings"]
    memory = machine["memory_bytes"] / 2**30
    notes = (
        f"{machine['cpu']}, {machine['logical_cores']} cores, {memory:.0f} GiB, Python {machine['python']}; random "
        f"weights, guidance, float32 where a name says nothing else. {figures['export']['rounds']} exports of each and "
        f"{settings['rounds']} runs of {settings['generations']} warm generations of {settings['steps']} steps, a "
        "process each, the systems in turn; in brackets the ratio to `sdrt` within a round: median, least–greatest. "
        "Peak memory is what the system cannot take back; with mapped files, weights that lie in "
        "memory as in their file count too. `sdrt` imports ONNX Runtime when it loads, and packs the weights for the "
        f"CPU then; diffusers maps them and reads them in its first step. {versions}."
    )
    bar = export.BAR
    notes = (
        f"The bar for the export: {bar['times_faster']:g}× faster in {bar['memory_ratio']:.2f} of the peak memory, "
        f"{'met' if export.met(figures['export']) else 'NOT met'} by the medians. {notes}"
    )
    measured = figures["generate"]
    parts = [export.table(figures["export"]), tables.systems(measured), tables.bars(measured)]
    listed = "\n".join([*tables.missing(measured), *tables.multiplication(measured)])
    return "\n".join([*parts, f"{listed}\n", f"{notes}\n"])


def insert(readme: Path, text: str | None) -> None:
    """Put ``text`` between the markers of ``readme``; None only looks for them."""
    content = readme.read_text(encoding="utf-8")
    before, _, rest = content.partition(START)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{readme} lacks the markers {START} and {END}")
    if text is not None:
        readme.write_text(f"{before}{START}\n{text}{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--size", type=int, default=512)
    for key, usual in REPEATS["cpu"].items():
        parser.add_argument(f"--{key}", type=int, default=usual, help=f"{usual} if left out")
    parser.add_argument("--export-rounds", type=int, default=2)
    add_systems(parser, "some of them; all that run on the CPU if left out")
    options = parser.parse_args()
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    insert(ROOT / "docs" / "benchmark-results.md", None)  # no markers: it ends here
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
        for stage, measure in (
            ("export", lambda: export.export_both(work, options.export_rounds)),
            ("generate", lambda: peers.compare(work, settings)),
        ):
            figures[stage] = measure()
            (results / f"{options.name}.json").write_text(
                json.dumps(figures, indent=2) + "\n", encoding="utf-8"
            )
    (results / f"{options.name}.md").write_text(report(figures), encoding="utf-8")
    insert(ROOT / "docs" / "benchmark-results.md", report(figures))
    print(report(figures))
    if not export.met(figures["export"]):
        raise SystemExit("the export is below its bar")


if __name__ == "__main__":
    main()
