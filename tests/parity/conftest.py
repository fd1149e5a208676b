"""Tiny checkpoints, as diffusers loads them and as optimum exports them, each made once per session."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.made_once import MadeOnce

# The oracles come with the test extra; without them there is nothing to compare with.
collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]

if not collect_ignore_glob and "PYTEST_XDIST_WORKER" in os.environ:
    import torch

    # torch's threads wait in loops: two processes with two threads each, on two cores, take fifty times as long.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(made_once: MadeOnce) -> Callable[[str], Path]:
    """The folder of a checkpoint of `checkpoints.VARIANTS`, or of `XL_VARIANTS`."""
    from tests.parity.checkpoints import make_checkpoint
    from tests.parity.xl_checkpoints import XL_VARIANTS, make_xl_checkpoint

    def make(folder: Path, variant: str) -> None:
        (make_xl_checkpoint if variant in XL_VARIANTS else make_checkpoint)(folder, variant)

    return lambda variant: made_once(f"checkpoint/{variant}", lambda folder: make(folder, variant))


@pytest.fixture(scope="session")
def optimum_folder(checkpoint: Callable[[str], Path], made_once: MadeOnce) -> Callable[[str], Path]:
    """A checkpoint exported by optimum alone."""

    def export(variant: str, folder: Path) -> None:
        from optimum.exporters.onnx import main_export

        with warnings.catch_warnings():
            # torch's TorchScript exporter warns about itself and about tracing; neither is ours to act on.
            warnings.simplefilter("ignore")
            main_export(str(checkpoint(variant)), folder, task="text-to-image", do_validation=False)

    return lambda variant: made_once(f"optimum/{variant}", lambda folder: export(variant, folder))


@pytest.fixture(scope="session")
def sdrt_folder(checkpoint: Callable[[str], Path], made_once: MadeOnce) -> Callable[[str], Path]:
    """A checkpoint exported by `sdrt export`, for the CPU."""

    def export(variant: str, folder: Path) -> None:
        from sdrt_export import export_model

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            export_model(checkpoint(variant), folder, target="cpu", verify=True)

    return lambda variant: made_once(f"sdrt/{variant}", lambda folder: export(variant, folder))


@pytest.fixture(params=["sdrt", "optimum"])
def any_folder(
    request: pytest.FixtureRequest,
    sdrt_folder: Callable[[str], Path],
    optimum_folder: Callable[[str], Path],
) -> Callable[[str], Path]:
    """A checkpoint exported by `sdrt export`, and by optimum alone, in turn."""
    return {"sdrt": sdrt_folder, "optimum": optimum_folder}[request.param]


@pytest.fixture(scope="session")
def diffusers_pipeline(checkpoint: Callable[[str], Path]) -> Callable[[str], Any]:
    """diffusers' own pipeline over a checkpoint."""
    made: dict[str, Any] = {}

    def get(variant: str) -> Any:
        if variant not in made:
            from diffusers import DiffusionPipeline

            made[variant] = DiffusionPipeline.from_pretrained(checkpoint(variant))
            made[variant].set_progress_bar_config(disable=True)
        return made[variant]

    return get


@pytest.fixture(scope="session")
def encoder(made_once: MadeOnce) -> Path:
    """A vision encoder, in a folder."""
    from tests.parity.ip_adapters import image_encoder_folder

    return made_once("ip_adapter/encoder", lambda folder: image_encoder_folder(folder) and None)


@pytest.fixture(scope="session")
def adapter(made_once: MadeOnce, diffusers_pipeline: Callable[[str], Any]) -> Callable[[str, str, int], Path]:
    """The file of an IP-Adapter of a kind for a variant's U-Net. The numbers give different ones."""
    from tests.parity.ip_adapters import adapter_file

    def make(variant: str, kind: str, number: int, folder: Path) -> None:
        folder.mkdir()
        adapter_file(folder / "adapter.safetensors", diffusers_pipeline(variant).unet, kind, 60 + number)

    return lambda variant, kind, number: (
        made_once(f"ip_adapter/{variant}-{kind}-{number}", lambda folder: make(variant, kind, number, folder))
        / "adapter.safetensors"
    )
