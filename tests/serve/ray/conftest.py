"""A server on a Ray cluster of several node processes, and on this machine alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.batch.cluster import MARK, Cluster, nodes, variables
from tests.serve.core.running import Running, serving, wait_for


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head and another node, of one CPU each."""
    made = Cluster(variables())
    yield made
    made.end()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Running]:
    """A server with two models, of which its only worker keeps one open."""
    environment = variables()
    models = ("-m", "shapes", "-m", f"small={tiny_model}", "--models-per-worker", "1")
    words = ("--ray", "local", "--max-workers", "1", "--cpus-per-worker", "0.5", *models)
    with serving(tmp_path_factory.mktemp("local"), *words, **environment) as running:
        yield running
    assert running.process.returncode == 0, running.log.read_text()
    wait_for(lambda: not nodes(environment[MARK]))
