"""Several models in one server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.core.running import Running, serving
from tests.serve.core.test_jobs import TASK, over


def opened(server: Running) -> set[str]:
    """The models that a worker has open."""
    with server.client() as client:
        lines = client.get("/metrics").text.splitlines()
    found = (line for line in lines if line.startswith("sdrt_model_open{") and line.endswith(" 1.0"))
    return {line.split('"')[1] for line in found}


def make(server: Running, model: str) -> str:
    with server.client() as client:
        job = client.post("/jobs", json=TASK | {"model": model}).json()["id"]
        said = over(client, job)
        assert said["model"] == model
        return str(said["status"])


@pytest.fixture(scope="module")
def folders(tiny_model: Path) -> tuple[str, ...]:
    return ("-m", "shapes", "-m", f"small={tiny_model}")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, folders: tuple[str, ...]) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("several"), *folders) as running:
        yield running


def test_a_model_is_opened_when_it_is_asked_for_and_stays(several: Running) -> None:
    assert opened(several) == {"shapes"}
    assert make(several, "small") == "done"
    assert make(several, "shapes") == "done"
    assert opened(several) == {"shapes", "small"}


def test_the_one_used_longest_ago_is_let_go_of(tmp_path: Path, folders: tuple[str, ...]) -> None:
    with serving(tmp_path, *folders, "--max-memory", "1MB") as server:
        assert opened(server) == {"shapes"}
        assert make(server, "small") == "done"
        assert opened(server) == {"small"}
        assert make(server, "shapes") == "done"
        assert opened(server) == {"shapes"}


def test_two_workers_open_a_model_each_where_that_saves_opening_it_again(
    tmp_path: Path, folders: tuple[str, ...]
) -> None:
    with serving(tmp_path, *folders, "--workers", "2", "--lazy", ready=True) as server:
        assert opened(server) == set()
        for model in ("shapes", "small", "shapes", "small"):
            assert make(server, model) == "done"
        assert opened(server) == {"shapes", "small"}


def test_a_model_that_cannot_be_opened_fails_its_jobs_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with serving(tmp_path, "-m", "shapes", "-m", f"broken={tmp_path / 'empty'}") as server:
        assert make(server, "broken") == "failed"
        assert make(server, "shapes") == "done"
