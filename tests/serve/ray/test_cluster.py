"""`sdrt serve --ray ADDRESS`, on a cluster of several node processes that loses parts of itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.batch.cluster import Cluster, variables
from tests.serve.core.running import Running, serving, wait_for
from tests.serve.core.test_jobs import TASK, events, over

for module in ("ray", "grpc"):
    pytest.importorskip(module)
pytestmark = [pytest.mark.full, pytest.mark.xdist_group("ray")]

# Some seconds with a CPU.
LONG = TASK | {"num_inference_steps": 150, "num_images_per_prompt": 2}

APPLICATIONS = """
import logging, sys, ray
from ray import serve
ray.init(address=sys.argv[1], logging_level=logging.ERROR, log_to_driver=False)
print([*serve.status().applications])
"""


def applications(cluster: Cluster) -> str:
    """The names of the applications on the cluster."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", APPLICATIONS, cluster.address],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, **cluster.environment},
    ).stdout.strip()


def on(cluster: Cluster, folder: Path, *words: str) -> AbstractContextManager[Running]:
    return serving(folder, "--ray", cluster.address, "--max-workers", "2", *words, **cluster.environment)


def submit(client: httpx.Client, count: int) -> list[str]:
    return [client.post("/jobs", json=LONG | {"seed": seed}).json()["id"] for seed in range(count)]


def number(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def running(client: httpx.Client) -> list[str]:
    """The jobs of which a worker has made a step, and not the last."""
    jobs = client.get("/jobs").json()["jobs"]
    return [one["id"] for one in jobs if one["status"] == "running" and one["step"]]


def test_workers_are_added_and_a_node_may_be_lost(cluster: Cluster, tmp_path: Path) -> None:
    with on(cluster, tmp_path) as server, server.client() as client:
        assert number(client, "sdrt_workers_ready") == 1
        jobs = submit(client, 4)
        wait_for(lambda: len(running(client)) == 2 and number(client, "sdrt_workers_ready") == 2)
        cluster.say("kill 1")
        assert [over(client, job)["status"] for job in jobs] == ["done"] * 4
        assert number(client, "sdrt_worker_restarts_total") == 1
        assert client.get("/readyz").status_code == 200


def test_when_the_head_is_lost_all_are_told(cluster: Cluster, tmp_path: Path) -> None:
    with on(cluster, tmp_path) as server, server.client() as client:
        jobs = submit(client, 4)
        wait_for(lambda: any(client.get(f"/jobs/{job}").json()["step"] for job in jobs))
        last: dict[str, tuple[str, str]] = {}
        listeners = [threading.Thread(target=listen, args=(server, job, last)) for job in jobs]
        for one in listeners:
            one.start()
        wait_for(lambda: len(last) == len(jobs))
        cluster.say("kill 0")
        for one in listeners:
            one.join(120)
        assert {last[job][0] for job in jobs} == {"failed"}
        assert all("is gone" in last[job][1] for job in jobs), last
        assert server.process.wait(60) == 1
    assert f"the cluster {cluster.address} is gone" in server.log.read_text().splitlines()[-1]


def listen(server: Running, job: str, last: dict[str, tuple[str, str]]) -> None:
    with server.client() as client:
        for name, data in events(client, job):
            last[job] = (name, str(data))


@pytest.mark.parametrize("how", ["terminated", "killed"])
def test_a_server_that_ends_leaves_no_application(cluster: Cluster, tmp_path: Path, how: str) -> None:
    with on(cluster, tmp_path) as server:
        assert "sdrt-" in applications(cluster)
        (server.process.terminate if how == "terminated" else server.process.kill)()
        assert server.process.wait(60) == (0 if how == "terminated" else -9)
    wait_for(lambda: not cluster.workers("ray::ServeReplica"))
    assert applications(cluster) == "[]"


def test_a_server_takes_over_what_another_left_behind(cluster: Cluster, tmp_path: Path) -> None:
    with on(cluster, tmp_path) as server:
        (driver,) = (one for one in psutil.Process(server.process.pid).children() if is_driver(one))
        driver.kill()
        assert server.process.wait(60) == 1
        assert "is gone" in server.log.read_text().splitlines()[-1]
    left = applications(cluster)
    assert "sdrt-" in left
    with on(cluster, tmp_path, "--port", server.url.rpartition(":")[2]) as again, again.client() as client:
        assert applications(cluster) == left
        job = client.post("/jobs", json=TASK).json()["id"]
        assert over(client, job)["status"] == "done"
    assert applications(cluster) == "[]"


def is_driver(process: psutil.Process) -> bool:
    return any("spawn_main" in word for word in process.cmdline())


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    with serving(tmp_path, "--ray", "127.0.0.1:1", ready=False, **variables()) as server:
        with server.client() as client:
            assert client.get("/readyz").status_code == 503
        assert server.process.wait(200) == 1
    assert "127.0.0.1:1" in server.log.read_text().splitlines()[-1]
