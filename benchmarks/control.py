"""This command measures what a ControlNet adds to a step: beside the plain step, and the ControlNet alone.

    python -m benchmarks control [--work DIR] [--rounds 5] [--architecture sd15] [--size 512]

All start from random weights, as an exported folder (float32) and a ControlNet beside it. One process opens the U-Net's
two graphs and the ControlNet, and takes turns: a step of a plain run, the ControlNet alone, and a step of a run that
it guides. Both runs have guidance, so a batch of two. Every round begins with another one; ratios are taken within a
round. CPU time tells more than time where other programs run. The first step of each run, which loads its graphs, is
not counted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import tables, worker
from benchmarks.bars import judge_control
from benchmarks.command_line import conclude, parser_of
from benchmarks.control_step import CONTROLLED, NET, PLAIN
from benchmarks.folders import checkpoint, make
from benchmarks.measure import Run, device, markdown, run, spread
from benchmarks.settings import say
from sdrt_export.checkpoints.random import RandomTensors
from sdrt_export.checkpoints.safetensors_writer import write_safetensors
from sdrt_export.components.controlnet import controlnet_component
from sdrt_export.components.outline import tensors_of

__all__ = ["compare", "main", "table", "write_controlnet"]

PARTS = "both parts"
FIGURES = ("step", "cpu")
_SEED = 1
# The keys of a U-Net's config that the ControlNet has too.
_SHARED = (
    "in_channels",
    "flip_sin_to_cos",
    "freq_shift",
    "down_block_types",
    "block_out_channels",
    "layers_per_block",
    "downsample_padding",
    "act_fn",
    "norm_num_groups",
    "norm_eps",
    "cross_attention_dim",
    "attention_head_dim",
    "transformer_layers_per_block",
    "use_linear_projection",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
)


def compare(work: Path, options: Any) -> dict[str, Any]:
    """Run the process. The model and the ControlNet stay in `work`."""
    log, architecture = work / "log.txt", options.architecture
    model = make("sdrt", work, log, device="cpu", architecture=architecture, python=sys.executable)
    unet = checkpoint(work, log, architecture) / "unet"
    net = write_controlnet(unet, options.controlnet or work / "controlnet")
    command = [*worker.command(sys.executable, "control_step"), model, net]
    variables = {**worker.environment(), "SDRT_CACHE": os.fspath(work / "cache")}
    sizes = [str(options.size), str(options.rounds)]
    done = run([*command, *sizes], log, environment=variables)
    turns = [{**turn, PARTS: _sum(turn[PLAIN], turn[NET])} for turn in done.result["turns"]]
    for turn in turns:
        say(", ".join(f"{name}: {figures['step']:.3g} s" for name, figures in turn.items()))
    return _record(options, turns, done)


def _sum(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {key: one[key] + other[key] for key in one}


def write_controlnet(unet: Path, folder: Path) -> Path:
    """Write a ControlNet of random weights for a U-Net of diffusers, in float32, if `folder` has none."""
    if not (folder / "config.json").is_file():
        config = _config(json.loads((unet / "config.json").read_text(encoding="utf-8")))
        tensors = RandomTensors(tensors_of([controlnet_component("controlnet")], config), _SEED)
        folder.mkdir(parents=True, exist_ok=True)
        shapes = {name: tensors.shape(name) for name in tensors}
        write_safetensors(folder / "diffusion_pytorch_model.safetensors", shapes, tensors.__getitem__)
        (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return folder


def _config(unet: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a ControlNet that is a copy of the U-Net's first half, as diffusers' `from_unet` makes it."""
    return {"_class_name": "ControlNetModel", **{key: unet[key] for key in _SHARED if key in unet}}


def _record(options: Any, turns: Sequence[Mapping[str, Mapping[str, float]]], done: Run) -> dict[str, Any]:
    names = (PLAIN, NET, PARTS, CONTROLLED)
    return {
        "architecture": f"{options.architecture}, random weights, {options.size}x{options.size}",
        "rounds": len(turns),
        "turns": list(turns),
        "graphs": done.result["graphs"],
        "own_bytes": done.own_bytes,
        "seconds": {name: spread([turn[name]["step"] for turn in turns]) for name in names},
        "ratios": {
            name: {key: spread([turn[name][key] / turn[PARTS][key] for turn in turns]) for key in FIGURES}
            for name in names
        },
        "bars": judge_control(turns),
        "device": device(),
    }


def table(figures: Mapping[str, Any]) -> str:
    """Medians, and the ratio to both parts together with its spread; then the goal."""
    header = [f"A step of {figures['architecture']}", "time", "of both parts", "CPU time of both parts"]
    rows = [
        [
            f"`{name}`",
            f"{figures['seconds'][name]['median']:.3g} s",
            *(_ratio(figures, name, key) for key in FIGURES),
        ]
        for name in figures["seconds"]
    ]
    return "\n".join([markdown(header, rows), tables.bars(figures)])


def _ratio(figures: Mapping[str, Any], name: str, key: str) -> str:
    ratio = figures["ratios"][name][key]
    return f"{ratio['median']:.3f}× ({ratio['min']:.3f}–{ratio['max']:.3f})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("control", __doc__)
    parser.add_argument(
        "--work", type=Path, help="keep the models here (about 9 GB); default: a temporary folder"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--architecture", default="sd15", help="default: sd15")
    parser.add_argument("--size", type=int, default=512, help="width and height; default: %(default)s")
    parser.add_argument("--controlnet", type=Path, help="keep the ControlNet here; default: in --work")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    conclude(options, lambda work: compare(work, options), table)
