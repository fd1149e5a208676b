"""Workers that die, clients that go away, a server that is told to end: every accepted job gets an answer."""

from __future__ import annotations

import base64
import io
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from tests.serve.core.running import Running, serving, wait_for
from tests.serve.core.test_jobs import TASK, over

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and /proc of Linux")

LONG = TASK | {"num_inference_steps": 150}
SMALL = TASK | {"width": 64, "height": 64}
KILLS = 50


@pytest.fixture(scope="module")
def tough(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose workers are killed."""
    with serving(tmp_path_factory.mktemp("tough"), "--max-queue", "200") as running:
        yield running


def begun(client: httpx.Client, job: str) -> None:
    wait_for(lambda: client.get(f"/jobs/{job}").json()["step"] >= 1)


def kill_workers(server: Running) -> None:
    for pid in server.workers():
        os.kill(pid, signal.SIGKILL)


def deaths(server: Running) -> int:
    """How many deaths of workers the server has noticed."""
    return server.log.read_text().count("ended with code")


def test_a_job_survives_its_worker(tough: Running) -> None:
    with tough.client() as client:
        job = client.post("/jobs", json=TASK | {"num_inference_steps": 30}).json()["id"]
        behind = client.post("/jobs", json=TASK).json()["id"]
        begun(client, job)
        kill_workers(tough)
        assert over(client, job)["status"] == "done"
        assert over(client, behind)["status"] == "done"
        assert client.get("/readyz").status_code == 200
        assert "sdrt_worker_restarts_total 1.0" in client.get("/metrics").text


def test_a_job_that_kills_every_worker_is_told(tough: Running) -> None:
    with tough.client() as client:
        job = client.post("/jobs", json=LONG).json()["id"]
        for _ in range(3):
            before = deaths(tough)
            begun(client, job)
            kill_workers(tough)
            wait_for(lambda before=before: deaths(tough) > before)
        said = over(client, job)
        assert said["status"] == "failed", said
        assert said["error"]["code"] == "WorkerError"
        assert client.get(f"/jobs/{job}/result").status_code == 500
        assert over(client, client.post("/jobs", json=TASK).json()["id"])["status"] == "done"


def test_a_client_that_stops_listening_leaves_its_job(tough: Running) -> None:
    with tough.client() as client:
        job = client.post("/jobs", json=TASK | {"num_inference_steps": 20}).json()["id"]
        with client.stream("GET", f"/jobs/{job}/events") as answer:
            next(answer.iter_lines())
        assert over(client, job)["status"] == "done"


def test_half_a_body_is_forgotten(tough: Running) -> None:
    host, _, port = tough.url.removeprefix("http://").partition(":")
    for sent in (
        b"POST /jobs HTT",
        b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{",
    ):
        with socket.create_connection((host, int(port))) as half:
            half.sendall(sent)
    with tough.client() as client:
        assert client.get("/readyz").status_code == 200


def test_a_worker_that_hangs_does_not_stop_the_server(tough: Running) -> None:
    """The socket to it is soon full of an image."""
    buffer = io.BytesIO()
    Image.effect_noise((1024, 1024), 99).convert("RGB").save(buffer, "PNG")
    image = base64.b64encode(buffer.getvalue()).decode()
    assert len(image) > 1_000_000
    tough.wait_until_ready()
    workers = tough.workers()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        with tough.client() as client:
            job = client.post("/jobs", json=TASK | {"image": image, "width": 64, "height": 64}).json()["id"]
            assert client.get("/healthz", timeout=30).status_code == 200
            assert client.get(f"/jobs/{job}", timeout=30).json()["status"] == "running"
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
            assert over(client, job)["status"] == "done"
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)


class Faults:
    """Clients of all APIs, some of which go away, while workers are killed.

    Attributes:
        kills: how many workers were killed.
        ends: how requests ended: "done", "cancelled", "failed", "left".
    """

    def __init__(self, server: Running) -> None:
        self.server, self.kills, self.ends = server, 0, Counter[str]()
        self._over = threading.Event()

    def kill(self, times: int) -> None:
        """Kill workers that are ready. Those that never become ready would be given up in the end."""
        rng = random.Random(0)
        while self.kills < times and not self._over.is_set():
            self.server.wait_until_ready()
            time.sleep(rng.random())
            kill_workers(self.server)
            self.kills += 1

    def ask(self, seed: int, times: int) -> None:
        """Make so many requests, and more as long as workers are killed."""
        rng, count = random.Random(seed), 0
        with self.server.client() as client:
            while count < times or self.kills < KILLS:
                count += 1
                one = rng.choice(
                    (self._job, self._cancelled, self._listener, self._v1, self._a1111, self._left)
                )
                self.ends[one(client)] += 1

    def end(self) -> None:
        """Kill no more."""
        self._over.set()

    def _post(self, client: httpx.Client, path: str, body: dict[str, Any]) -> httpx.Response:
        while (answer := client.post(path, json=body)).status_code == 429:
            time.sleep(0.05)
        return answer

    def _job(self, client: httpx.Client) -> str:
        status: str = over(client, self._post(client, "/jobs", SMALL).json()["id"])["status"]
        return status

    def _cancelled(self, client: httpx.Client) -> str:
        job = self._post(client, "/jobs", SMALL).json()["id"]
        client.delete(f"/jobs/{job}")
        answer = client.get(f"/jobs/{job}")
        if answer.status_code == 404:  # it was done, so that the cancelling made the server forget it
            return "done"
        status: str = over(client, job)["status"]
        return status

    def _listener(self, client: httpx.Client) -> str:
        job = self._post(client, "/jobs", SMALL).json()["id"]
        with client.stream("GET", f"/jobs/{job}/events") as events:
            next(events.iter_lines())
        status: str = over(client, job)["status"]
        return status

    def _v1(self, client: httpx.Client) -> str:
        body = {"prompt": "a red circle", "steps": 3, "size": "64x64", "response_format": "b64_json"}
        answer = self._post(client, "/v1/images/generations", body)
        return told(answer, lambda: answer.json()["error"]["code"])

    def _a1111(self, client: httpx.Client) -> str:
        body = {"prompt": "a red circle", "steps": 3, "width": 64, "height": 64}
        answer = self._post(client, "/sdapi/v1/txt2img", body)
        return told(answer, lambda: answer.json()["error"])

    def _left(self, client: httpx.Client) -> str:
        """A client that does not wait for its answer."""
        path = random.choice(("/v1/images/generations", "/sdapi/v1/txt2img"))
        with pytest.raises(httpx.ReadTimeout):
            client.post(path, json={"prompt": "a red circle", "steps": 150}, timeout=0.1)
        return "left"


def told(answer: httpx.Response, code: Callable[[], str]) -> str:
    """How a request ended whose worker may have been killed three times."""
    if answer.status_code == 200:
        return "done"
    assert (answer.status_code, code()) == (500, "WorkerError"), answer.text
    return "failed"


@pytest.mark.full
def test_nothing_is_lost_among_a_thousand_faults(tough: Running) -> None:
    """Every request is answered while workers are killed fifty times, and nothing is left of those that went away."""
    faults = Faults(tough)
    with ThreadPoolExecutor(9) as threads:
        killer = threads.submit(faults.kill, KILLS)
        try:
            asking = [threads.submit(faults.ask, seed, 125) for seed in range(8)]
            for one in (*asking, killer):
                one.result()
        finally:
            faults.end()
    assert faults.kills == KILLS
    assert faults.ends.total() >= 1000
    assert faults.ends["done"] > faults.ends["failed"]
    tough.wait_until_ready()
    with tough.client() as client:
        wait_for(lambda: "sdrt_jobs_running 0.0" in client.get("/metrics").text)
        assert "sdrt_jobs_waiting 0.0" in client.get("/metrics").text
        assert over(client, client.post("/jobs", json=TASK).json()["id"])["status"] == "done"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_ends_finishes_what_runs_and_refuses_what_waits(
    tmp_path: Path, sent: signal.Signals
) -> None:
    with serving(tmp_path) as server:
        with server.client() as client, server.client() as other:
            running = client.post("/jobs", json=TASK | {"num_inference_steps": 60}).json()["id"]
            waiting = client.post("/jobs", json=TASK).json()["id"]
            begun(client, running)
            last = {}

            def listen(job: str) -> None:
                with other.stream("GET", f"/jobs/{job}/events") as events:
                    last[job] = [line for line in events.iter_lines() if line.startswith("event: ")][-1]

            listeners = [threading.Thread(target=listen, args=(job,)) for job in (running, waiting)]
            for one in listeners:
                one.start()
            wait_for(lambda: server.log.read_text().count("/jobs") >= 2)
            server.process.send_signal(sent)
            for one in listeners:
                one.join(60)
            assert last == {running: "event: done", waiting: "event: failed"}
        assert server.process.wait(60) == 0


def test_what_runs_finishes_although_its_worker_is_told_to_end_too(tmp_path: Path) -> None:
    """systemd sends SIGTERM to every process of a service."""
    with serving(tmp_path, "--grace", "600") as server:
        with server.client() as client:
            job = client.post("/jobs", json=TASK | {"num_inference_steps": 30}).json()["id"]
            with client.stream("GET", f"/jobs/{job}/events") as events:
                lines = events.iter_lines()
                assert any(line == "event: step" for line in lines)
                own = psutil.Process(server.process.pid)
                for one in (own, *own.children(recursive=True)):
                    one.send_signal(signal.SIGTERM)
                assert [line for line in lines if line.startswith("event: ")][-1] == "event: done"
        assert server.process.wait(60) == 0
        assert "ended with code" not in server.log.read_text()


_ONLY_A_WORKER = """
from sdrt.serve.messages import Messages
from sdrt.serve.worker import WorkerProcess
from sdrt.serve.worker_process import WorkerSetup
worker = WorkerProcess(WorkerSetup(models={}))
print(Messages(worker.socket).recv())
"""


def test_a_program_that_ends_early_does_not_wait_for_its_workers() -> None:
    """multiprocessing sends them SIGTERM, which they ignore, and waits."""
    done = subprocess.run(
        [sys.executable, "-c", _ONLY_A_WORKER], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("Ready(")


def test_a_second_ctrl_c_ends_the_server_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, "--grace", "100000") as server:
        workers = server.workers()
        with server.client() as client:
            body = {"prompt": "a red circle", "num_inference_steps": 150, "width": 1024, "height": 1024}
            begun(client, client.post("/jobs", json=body).json()["id"])
            server.process.send_signal(signal.SIGINT)
            wait_for(lambda: client.post("/jobs", json=TASK).status_code == 503)
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(60) == 0
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def test_after_a_second_ctrl_c_what_runs_fails(tmp_path: Path) -> None:
    with serving(tmp_path, "--grace", "3600") as server:
        with server.client() as client, server.client() as other:
            running = client.post("/jobs", json=LONG).json()["id"]
            begun(client, running)
            waiting = client.post("/jobs", json=TASK).json()["id"]
            last: list[str] = []

            def listen() -> None:
                with other.stream("GET", f"/jobs/{running}/events") as events:
                    last.extend(line for line in events.iter_lines() if line.startswith("event: "))

            listener = threading.Thread(target=listen)
            listener.start()
            server.process.send_signal(signal.SIGINT)
            wait_for(lambda: client.get(f"/jobs/{waiting}").json()["status"] == "failed")
            server.process.send_signal(signal.SIGINT)
            listener.join(60)
            assert last[-1] == "event: failed"
        assert server.process.wait(60) == 0


def test_workers_end_with_their_server(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        workers = server.workers()
        assert workers
        with server.client() as client:
            begun(client, client.post("/jobs", json=LONG).json()["id"])
        server.process.kill()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
