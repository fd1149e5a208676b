"""Models of target cuda, exported once per session where no GPU is seen: their graphs are what is tested."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.on_gpu import Export, Exports


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Iterator[Exports]:
    """`exports("sd1")`: a few channels; "wide": those of SD 1.5's first level, for which some kernels are made."""
    pytest.importorskip("torch", reason="torch makes the models")
    from tests.parity.checkpoints import VARIANTS, make_checkpoint

    sd1 = VARIANTS["sd1"]
    # 32 groups, heads of 40 and 80, and the VAE's one head of 256.
    wide = replace(
        sd1,
        unet=sd1.unet | {"block_out_channels": (320, 640), "attention_head_dim": 8, "norm_num_groups": 32},
        vae=sd1.vae | {"block_out_channels": (64, 64, 128, 256), "norm_num_groups": 32},
    )
    root = tmp_path_factory.mktemp("exports")
    made: dict[tuple[str, str], Export] = {}

    def get(variant: str, target: str = "cuda") -> Export:
        if (variant, target) not in made:
            checkpoint = root / variant / "checkpoint"
            if not checkpoint.exists():
                with warnings.catch_warnings():
                    # diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
                    warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
                    make_checkpoint(checkpoint, variant)
            folder = export(checkpoint, root / variant / target, target)
            made[variant, target] = Export(checkpoint=checkpoint, folder=folder)
        return made[variant, target]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "wide", wide)
        yield get


def export(checkpoint: Path, folder: Path, target: str) -> Path:
    """By the command, without a GPU: there NumPy checks it, and a graph that CUDA gets wrong gets to its own test."""
    command = [
        sys.executable,
        "-m",
        "sdrt",
        "export",
        checkpoint,
        "-o",
        folder,
        "--target",
        target,
        "--verify",
    ]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def torch_module() -> Callable[[Path, str], tuple[Any, Any]]:
    """A component's contract, and its torch module out of a checkpoint."""
    from sdrt_export.checkpoints.folder import open_folder
    from sdrt_export.components import COMPONENTS
    from sdrt_export.verify.modules import load_part

    def load(checkpoint: Path, name: str) -> tuple[Any, Any]:
        return COMPONENTS[name], load_part(open_folder(checkpoint), COMPONENTS[name].checkpoint)

    return load
