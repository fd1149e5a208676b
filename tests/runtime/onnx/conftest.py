"""Components of the tiny model, and a cache of their own for those that are tuned."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sdrt.common.notices import Notices
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component


@pytest.fixture(scope="module")
def unet(tiny_model: Path) -> Component:
    config = SessionConfig(provider="cpu", threads=1)
    return Component("unet", tiny_model / "unet" / "model.onnx", config, Notices(lambda message: None))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDRT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def vae(tiny_model: Path, tmp_path: Path, cache: Path, said: list[str]) -> Callable[..., Component]:
    """Opens the VAE's decoder of a copy of the tiny model."""
    folder = tmp_path / "vae_decoder"
    shutil.copytree(tiny_model / "vae_decoder", folder)

    def opened(tune: bool | None = None, digest: str | None = "a", *, adapted: bool = False) -> Component:
        config, weights = SessionConfig(provider="cpu", tune=tune), Weights(digest=digest, adapted=adapted)
        return Component("vae_decoder", folder / "model.onnx", config, Notices(said.append), weights)

    return opened
