"""ControlNets for the checkpoint sd1, and that checkpoint exported without any."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.export.control.images import control_image, made
from tests.made_once import MadeOnce

# The exporter comes with an extra; without it there is nothing to test.
collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]

Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="session")
def controlnets(checkpoint: Checkpoint, made_once: MadeOnce) -> list[Path]:
    """Two ControlNets for the checkpoint sd1. Not to be written to."""

    def make(number: int, folder: Path) -> None:
        import diffusers

        from tests.parity.checkpoints import randomise

        unet = diffusers.UNet2DConditionModel.from_pretrained(checkpoint("sd1") / "unet")
        module = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 6, 8, 10))
        randomise(module, 50 + number).save_pretrained(folder)

    return [
        made_once(f"control/net-{number}", lambda folder, number=number: make(number, folder))
        for number in (0, 1)
    ]


@pytest.fixture(scope="session")
def plain(checkpoint: Checkpoint, made_once: MadeOnce) -> Path:
    """The checkpoint sd1, exported without ControlNets. Not to be written to."""
    from sdrt_export import export_model

    return made_once("control/plain", lambda folder: export_model(checkpoint("sd1"), folder))


@pytest.fixture(scope="session")
def direct(checkpoint: Checkpoint, controlnets: list[Path]) -> np.ndarray:
    """An image of the checkpoint itself with both ControlNets."""
    return made(checkpoint("sd1"), controlnets, control_image=[control_image()] * 2)
