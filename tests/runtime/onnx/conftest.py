"""A component of the tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrt.common.notices import Notices
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component


@pytest.fixture(scope="module")
def unet(tiny_model: Path) -> Component:
    config = SessionConfig(provider="cpu", threads=1)
    return Component("unet", tiny_model / "unet" / "model.onnx", config, Notices(lambda message: None))
