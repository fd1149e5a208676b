"""Makes the folders that systems load, all from one checkpoint of random weights, once per work folder."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import worker
from benchmarks.measure import Failed, run

__all__ = ["FOLDERS", "Maker", "checkpoint", "make", "single_file"]

Command = list[str | Path]
SEED, ARCHITECTURE = 0, "architecture.txt"


@dataclass(frozen=True, kw_only=True)
class Maker:
    """How to make a folder: from which other folder, and with which command in the interpreter of its system.

    `named` is the folder's name by device. Exports for different devices are side by side.
    """

    source: str
    named: Mapping[str, str]
    command: Callable[[Path, Path, str], Command]


def _ours(source: Path, output: Path, device: str) -> Command:
    return ["-m", "sdrt", "export", source, "-o", output, "--target", device, "--force"]


def _portable(source: Path, output: Path, _device: str) -> Command:
    return [
        "-m",
        "sdrt",
        "export",
        source,
        "-o",
        output,
        "--target",
        "portable",
        "--dtype",
        "fp16",
        "--force",
    ]


def _int8(source: Path, output: Path, device: str) -> Command:
    # The seed gives the checkpoint's weights. The exporter accepts the errors of int8 only for weights that it knows
    # are random.
    architecture = (source.parent / ARCHITECTURE).read_text(encoding="utf-8")
    drawn: Command = ["--architecture", architecture, "--random-weights", str(SEED)]
    return ["-m", "sdrt", "export", *drawn, "-o", output, "--target", device, "--dtype", "int8", "--force"]


def _optimum(source: Path, output: Path, device: str) -> Command:
    # optimum traces float16 on the GPU.
    half: Command = ["--dtype", "fp16", "--device", "cuda"] if device == "cuda" else []
    return [*_OPTIMUM_CLI, "export", "onnx", "--model", source, "--task", "text-to-image", *half, output]


def _single(source: Path, output: Path, _device: str) -> Command:
    return [*_OPTIMUM_CLI, "export", "onnx", "--model", source, "--task", "text-to-image", output]


def _fused(source: Path, output: Path, device: str) -> Command:
    half: Command = ["--float16"] if device == "cuda" else []
    module = "onnxruntime.transformers.models.stable_diffusion.optimize_pipeline"
    return ["-m", module, "-i", source, "-o", output, "--overwrite", *half]


def _openvino(source: Path, output: Path, _device: str) -> Command:
    # OpenVINO converts torch's modules itself, without ONNX, so attention stays one operator.
    exact: Command = ["--task", "text-to-image", "--weight-format", "fp32"]
    return [*_OPTIMUM_CLI, "export", "openvino", "--model", source, *exact, output]


_OPTIMUM_CLI: Command = ["-m", "optimum.commands.optimum_cli"]

FOLDERS: Mapping[str, Maker] = {
    "sdrt": Maker(source="checkpoint", named={"cpu": "sdrt", "cuda": "sdrt-cuda"}, command=_ours),
    "sdrt-portable": Maker(source="checkpoint", named={"cuda": "sdrt-portable"}, command=_portable),
    "sdrt-int8": Maker(source="checkpoint", named={"cpu": "sdrt-int8"}, command=_int8),
    "optimum": Maker(source="checkpoint", named={"cpu": "optimum", "cuda": "optimum-cuda"}, command=_optimum),
    "optimum-fp32": Maker(source="checkpoint", named={"cpu": "optimum", "cuda": "optimum"}, command=_single),
    # The script fuses only float32 graphs, and converts them afterwards.
    "fused": Maker(source="optimum-fp32", named={"cpu": "fused", "cuda": "fused-cuda"}, command=_fused),
    "openvino": Maker(source="checkpoint", named={"cpu": "openvino"}, command=_openvino),
}


def checkpoint(work: Path, log: Path, architecture: str) -> Path:
    """A diffusers folder of an architecture with random weights. Raises `Failed`, also if `work` has another one."""
    folder, mark = work / "checkpoint", work / ARCHITECTURE
    if not (folder / "model_index.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        _written("folder", architecture, folder, log)
        mark.write_text(architecture, encoding="utf-8")
    found = mark.read_text(encoding="utf-8") if mark.is_file() else "an unknown architecture"
    if found != architecture:
        raise Failed(f"{folder} holds {found}: expected {architecture}; give another --work")
    return folder


def single_file(work: Path, log: Path, architecture: str) -> Path:
    """The same weights as one file in float16, as A1111 has them. Raises `Failed`."""
    path = work / f"{architecture}.safetensors"
    if not path.is_file():
        partial = path.with_suffix(".part")
        partial.unlink(missing_ok=True)
        _written("single", architecture, partial, log)
        partial.replace(path)
    return path


def _written(kind: str, architecture: str, path: Path, log: Path) -> None:
    """Write a checkpoint in another process, whose memory is its own."""
    command = worker.command(sys.executable, "checkpoints")
    run([*command, kind, architecture, str(SEED), path], log, environment=worker.environment())


def make(name: str, work: Path, log: Path, *, device: str, architecture: str, python: str) -> Path:
    """Make the folder of a row of `FOLDERS`, or the "checkpoint". Raises `Failed` if that does not work."""
    if name == "checkpoint":
        return checkpoint(work, log, architecture)
    maker = FOLDERS[name]
    folder = work / maker.named[device]
    if not _is_whole(folder):
        source = make(maker.source, work, log, device=device, architecture=architecture, python=python)
        # Rename it when it is complete: an interrupted exporter leaves an incomplete folder.
        partial = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        run([python, *maker.command(source, partial, device)], log)
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    return folder


def _is_whole(folder: Path) -> bool:
    return (folder / "model_index.json").is_file()
