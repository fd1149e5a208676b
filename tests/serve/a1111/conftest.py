"""A server with A1111's API for the tests of this folder, and A1111's clients for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from tests.made_once import MadeOnce
from tests.serve.core.running import Running, serving

if TYPE_CHECKING:
    import webuiapi

    from sdrt import StableDiffusionPipeline

SIDE = 128
STEPS = 4


@pytest.fixture(scope="session")
def with_edges(made_once: MadeOnce) -> Path:
    """The embedded model with its ControlNet, exported. Not to be written to."""

    def make(folder: Path) -> None:
        import sdrt_models

        restored = folder.with_name("restored")
        run = [sys.executable, "-m"]
        subprocess.run([*run, "sdrt_export.restore", "shapes", restored], check=True, capture_output=True)
        edges = sdrt_models.adapter("edges")
        export = ["sdrt", "export", restored, "--controlnet", edges, "-o", folder]
        subprocess.run([*run, *map(str, export)], check=True, capture_output=True)
        shutil.rmtree(restored)

    return made_once("serve/edges", make)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, with_edges: Path) -> Iterator[Running]:
    """A server with the embedded model, the same model with a ControlNet, and a LoRA."""
    import sdrt_models

    folder = tmp_path_factory.mktemp("server")
    loras = folder / "loras"
    loras.mkdir()
    shutil.copy(sdrt_models.adapter("moon"), loras / "moon.safetensors")
    models = ("-m", "shapes", "-m", f"edges={with_edges}")
    with serving(folder, *models, "--provider", "cpu", "--lora-dir", str(loras)) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    """Requests without a client's help."""
    with server.client() as made:
        yield made


def webui(server: Running, **options: object) -> webuiapi.WebUIApi:
    """A client of webuiapi."""
    import webuiapi

    place = urlsplit(server.url)
    return webuiapi.WebUIApi(host=place.hostname, port=place.port, sampler="Euler a", steps=STEPS, **options)


@pytest.fixture
def api(server: Running) -> webuiapi.WebUIApi:
    """webuiapi's client, as its users make it."""
    return webui(server)


@pytest.fixture(scope="session")
def local() -> Iterator[StableDiffusionPipeline]:
    """The embedded model in this process."""
    from sdrt import StableDiffusionPipeline

    with StableDiffusionPipeline.from_pretrained("shapes", provider="cpu", notify=lambda _: None) as made:
        yield made
