"""Fixtures of every test: the tiny model, folders that can be damaged, and a cache that is not the user's."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from tests.made_once import MadeOnce

if TYPE_CHECKING:
    from sdrt import StableDiffusionPipeline

# Tests stay off the network. huggingface_hub reads this when it is first imported, which may be while tests are
# collected. Later, it would try to connect for 23 s.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """What `make(folder)` writes, once for all processes that test: `made_once(name, make)`. Only to read."""
    own = tmp_path_factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "made-once"

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder = root / name
        half = folder.with_name(f"{folder.name}.part")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not folder.exists():
                shutil.rmtree(half, ignore_errors=True)
                make(half)
                half.rename(folder)
        return folder

    return get


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache for what session fixtures do, before a test's own one is set."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("SDRT_CACHE", str(cache))
        yield cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder per test, for huggingface_hub too."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("SDRT_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return cache


@pytest.fixture(scope="session", autouse=True)
def heed_ctrl_c() -> Iterator[None]:
    """A shell that starts the tests in the background has them, and all they start, ignore Ctrl-C."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """SD 1.5's blocks with a few channels and random weights, or the exported folder that SDRT_TEST_MODEL names.

    Not to be written to.
    """
    return Path(os.environ.get("SDRT_TEST_MODEL", Path(__file__).parent / "models" / "tiny"))


@pytest.fixture
def model_copy(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model without its manifest, to be damaged."""
    copy = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (copy / "sdrt.json").unlink(missing_ok=True)
    return copy


@pytest.fixture(scope="session")
def pipeline(tiny_model: Path) -> Iterator[StableDiffusionPipeline]:
    """The tiny model on the CPU, loaded once."""
    from sdrt import StableDiffusionPipeline

    with StableDiffusionPipeline.from_pretrained(
        tiny_model, provider="cpu", threads=1, verify=False, notify=lambda message: None
    ) as made:
        yield made
