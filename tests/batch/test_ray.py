"""`sdrt batch --ray`: on this machine, and on a cluster of several node processes that loses parts of itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from tests.batch.cluster import MARK, Cluster, nodes, variables
from tests.batch.conftest import index, write_rows
from tests.batch.test_batch import SLOW, lines, wait_for

pytest.importorskip("ray")
pytestmark = [pytest.mark.full, pytest.mark.xdist_group("ray")]

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables of all that a test starts."""
    made = variables()
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def cluster(folder: Path, environment: dict[str, str]) -> Iterator[Cluster]:
    made = Cluster(environment)
    yield made
    made.end()


def test_a_cluster_of_this_machine_makes_the_same(started: Start, environment: dict[str, str]) -> None:
    rows = [
        {"prompt": "a"},
        {"prompt": "b", "steps": 0},
        {"prompt": "c", "image": "nothing.png"},
        {"prompt": "d"},
    ]
    write_rows(rows)
    for words in (["--ray", "local", "--workers", "2"], ["-o", "plain"]):
        process = started("in.jsonl", *words)
        _, said = process.communicate(timeout=180)
        assert process.returncode == 1, said
    assert [(one["sha256"], one["error"]) for one in index()] == [
        (one["sha256"], one["error"]) for one in index("plain")
    ]
    assert [one["error"] is None for one in index()] == [True, False, False, True]
    assert not nodes(environment[MARK])


def test_what_no_node_has(started: Start) -> None:
    process = started(write_rows([{"prompt": "a"}]), "--ray", "local", "--gpus-per-worker", "2")
    _, said = process.communicate(timeout=120)
    assert (process.returncode, "no node has 1 CPU and 2 GPU for a worker" in said) == (2, True), said


def run_on(cluster: Cluster, started: Start) -> subprocess.Popen[str]:
    process = started(write_rows(SLOW), "--ray", cluster.address, "--workers", "2")
    wait_for(lambda: lines() >= 1, process)
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=200)
    return process.returncode, said


def test_an_actor_is_killed(cluster: Cluster, started: Start) -> None:
    process = run_on(cluster, started)
    cluster.workers("ray::MapWorker")[0].kill()
    code, said = ended(process)
    assert code == 0, said
    assert [one["error"] for one in index()] == [None] * len(SLOW)


def test_a_node_is_killed(cluster: Cluster, started: Start) -> None:
    process = run_on(cluster, started)
    cluster.say("kill 1")
    code, said = ended(process)
    assert code == 0, said
    assert [one["error"] for one in index()] == [None] * len(SLOW)


def test_the_head_is_killed(cluster: Cluster, started: Start, batch: Callable[..., Result]) -> None:
    process = run_on(cluster, started)
    cluster.say("kill 0")
    code, said = ended(process)
    assert code == 1, said
    assert "run the same command again" in said
    there = len(index())
    assert 1 <= there < len(SLOW)
    # What was made stays, and the rest can be made elsewhere.
    result = json.loads(batch("in.jsonl", "--json").stdout)
    assert (result["there"], result["made"]) == (there, len(SLOW) - there)
