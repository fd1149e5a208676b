"""Export the full-size SD 1.5 architecture with sdrt and with optimum, one after the other.

    python benchmarks/export.py [--work DIR]

Both start from the same diffusers folder of random weights and end with a checked model folder: sdrt compares every
component with torch, optimum's command line validates what it wrote. Time is of the whole process, memory the peak of
the process and its children; `measure.py` says what is counted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import Run, device, markdown, run

BAR = {"times_faster": 4.0, "memory_ratio": 1 / 3}
_MAKE = """
import sys
from pathlib import Path
from diffusers import PNDMScheduler, StableDiffusionPipeline
from transformers import CLIPTokenizer
from sdrt_export.checkpoint import RandomCheckpoint
from sdrt_export.tokenizer import write_byte_tokenizer
folder = Path(sys.argv[1])
source = RandomCheckpoint(architecture="sd15", seed=0)
write_byte_tokenizer(folder / "scratch", folder / "words", 77)
StableDiffusionPipeline(
    text_encoder=source.load("text_encoder"), unet=source.load("unet"), vae=source.load("vae"),
    tokenizer=CLIPTokenizer.from_pretrained(folder / "words"),
    scheduler=PNDMScheduler.from_config(source.scheduler_config()),
    safety_checker=None, feature_extractor=None, requires_safety_checker=False,
).save_pretrained(folder / "checkpoint")
"""


def make_checkpoint(work: Path, log: Path) -> Path:
    """A diffusers folder of SD 1.5's size with random weights, made once per work folder."""
    checkpoint = work / "checkpoint"
    if not (checkpoint / "model_index.json").is_file():
        run([sys.executable, "-c", _MAKE, work], log)
        shutil.rmtree(work / "words")
    return checkpoint


def export_both(work: Path) -> dict[str, Any]:
    """Export with both; the folders stay in ``work`` as ``sdrt`` and ``optimum``."""
    log = work / "log.txt"
    checkpoint = make_checkpoint(work, log)
    for name in ("sdrt", "optimum"):
        shutil.rmtree(work / name, ignore_errors=True)
    scripts = Path(sys.executable).parent
    ours = run([scripts / "sdrt", "export", checkpoint, "-o", work / "sdrt", "--target", "cpu"], log)
    theirs = run(
        [
            scripts / "optimum-cli",
            "export",
            "onnx",
            "--model",
            checkpoint,
            "--task",
            "text-to-image",
            work / "optimum",
        ],
        log,
    )
    return {
        "architecture": "sd15, random weights",
        "sdrt": _figures(ours),
        "optimum": _figures(theirs),
        "times_faster": theirs.seconds / ours.seconds,
        "memory_ratio": ours.own_bytes / theirs.own_bytes,
        "resident_ratio": ours.resident_bytes / theirs.resident_bytes,
        "bar": BAR,
        "device": device(),
    }


def _figures(finished: Run) -> dict[str, float]:
    return {
        "seconds": finished.seconds,
        "own_bytes": finished.own_bytes,
        "resident_bytes": finished.resident_bytes,
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    rows = [
        [
            f"`{name}`",
            f"{figures[name]['seconds']:.0f} s",
            f"{figures[name]['own_bytes'] / 1e9:.1f} GB",
            f"{figures[name]['resident_bytes'] / 1e9:.1f} GB",
        ]
        for name in ("sdrt", "optimum")
    ]
    ratios = [
        f"{1 / figures['times_faster']:.2f}",
        f"{figures['memory_ratio']:.2f}",
        f"{figures['resident_ratio']:.2f}",
    ]
    header = ["Export of SD 1.5's architecture", "time", "peak memory", "with mapped files"]
    return markdown(header, [*rows, ["ratio", *ratios]])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, help="keep checkpoint and exports here (about 14 GB); a temporary folder"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = (options.work or Path(scratch)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        figures = export_both(work)
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if figures["times_faster"] < BAR["times_faster"] or figures["memory_ratio"] > BAR["memory_ratio"]:
        sys.exit(f"below the bar: {BAR['times_faster']:g}× faster in {BAR['memory_ratio']:.2f} of the memory")


if __name__ == "__main__":
    main()
