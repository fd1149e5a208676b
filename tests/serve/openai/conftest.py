"""A server, and OpenAI's own client of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from sdrt import StableDiffusionPipeline
from tests.serve.core.running import Running, serving

LORAS = Path(__file__).parents[3] / "models/sdrt_models/shapes/adapters"


def client_of(server: Running, key: str = "any", *, retries: int = 0) -> OpenAI:
    """OpenAI's client. It needs a key, also for a server that needs none."""
    return OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=retries)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the embedded model and its LoRA."""
    with serving(tmp_path_factory.mktemp("server"), "--lora-dir", str(LORAS)) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[OpenAI]:
    with client_of(server) as made:
        yield made


@pytest.fixture(scope="session")
def shapes() -> Iterator[StableDiffusionPipeline]:
    """The same model in this process."""
    with StableDiffusionPipeline.from_pretrained("shapes", notify=lambda message: None) as pipeline:
        yield pipeline
