"""`sdrt batch --ray`: on this machine, and on a cluster of several node processes that loses parts of itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from click.testing import Result

from tests.batch.conftest import index, write_rows
from tests.batch.test_batch import SLOW, lines, wait_for

pytest.importorskip("ray")
pytestmark = pytest.mark.full

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No telemetry, a token that is not the user's, and little patience with a head that is gone."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ab" * 32)
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")


class Cluster:
    """A head and another node, in processes of their own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.batch.cluster"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        self.say("add")

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def actors(self) -> list[psutil.Process]:
        """The processes that make images."""
        below = psutil.Process(self._process.pid).children(recursive=True)
        return [one for one in below if one.cmdline()[:1] and one.cmdline()[0].startswith("ray::MapWorker")]

    def end(self) -> None:
        below = psutil.Process(self._process.pid).children(recursive=True)
        self._process.communicate(timeout=60)
        for one in below:
            if one.is_running():
                one.kill()


@pytest.fixture
def cluster(folder: Path) -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.end()


def left(mark: str) -> list[str]:
    """The processes that were started with this variable and go on. Other tests may have nodes at the same time."""
    return [one.name() for one in psutil.process_iter() if mark in _environment(one)]


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:  # it has ended, or is another user's
        return {}


def test_a_cluster_of_this_machine_makes_the_same(started: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = f"SDRT_TEST_{uuid.uuid4().hex}"
    monkeypatch.setenv(mark, "1")
    rows = [
        {"prompt": "a"},
        {"prompt": "b", "steps": 0},
        {"prompt": "c", "image": "nothing.png"},
        {"prompt": "d"},
    ]
    write_rows(rows)
    for words in (["--ray", "local", "--workers", "2"], ["-o", "plain"]):
        process = started("in.jsonl", *words)
        if "--ray" in words:
            wait_for(lambda: "raylet" in left(mark), process)
        _, said = process.communicate(timeout=180)
        assert process.returncode == 1, said
    assert [(one["sha256"], one["error"]) for one in index()] == [
        (one["sha256"], one["error"]) for one in index("plain")
    ]
    assert [one["error"] is None for one in index()] == [True, False, False, True]
    monkeypatch.delenv(mark)
    end = time.monotonic() + 30
    while names := left(mark):
        assert time.monotonic() < end, names
        time.sleep(0.1)


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
    cluster.actors()[0].kill()
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
