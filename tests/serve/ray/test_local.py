"""`sdrt serve --ray local`: the same answers as from workers of this machine, and replicas that are killed."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import numpy as np
import psutil
import pytest

from sdrt import StableDiffusionPipeline
from tests.batch.cluster import below
from tests.serve.core.running import Running, wait_for
from tests.serve.core.test_jobs import TASK, events, make, over, pixels

for module in ("ray", "grpc"):
    pytest.importorskip(module)
pytestmark = [pytest.mark.full, pytest.mark.xdist_group("ray")]

LONG = TASK | {"num_inference_steps": 150}
REPLICA = "ray::ServeReplica"


@pytest.fixture
def client(local: Running) -> Iterator[httpx.Client]:
    with local.client() as made:
        yield made


def begun(client: httpx.Client, job: str) -> None:
    wait_for(lambda: client.get(f"/jobs/{job}").json()["step"] >= 1)


def numbers(client: httpx.Client, name: str) -> dict[str, float]:
    """The values of a metric, by its label."""
    lines = (line for line in client.get("/metrics").text.splitlines() if line.startswith(name))
    return {line.split(" ")[0].removeprefix(name): float(line.split(" ")[1]) for line in lines}


def replicas(server: Running) -> list[psutil.Process]:
    return below(server.process.pid, REPLICA)


def kill_replica(server: Running) -> None:
    (replica,) = replicas(server)
    replica.kill()


def deaths(server: Running) -> int:
    """How many deaths of replicas the server has noticed."""
    return server.log.read_text().count("a worker on the cluster ended")


def test_the_image_is_the_pipeline_s(client: httpx.Client) -> None:
    job = make(client)
    own = StableDiffusionPipeline.from_pretrained("shapes", threads=1)(**TASK).images[0]
    assert np.array_equal(pixels(client.get(job["images"][0]["url"]).content), np.asarray(own))


def test_events_tell_every_step_and_the_previews(client: httpx.Client) -> None:
    before = client.post("/jobs", json=TASK | {"num_inference_steps": 40}).json()["id"]
    job = client.post("/jobs", json=TASK | {"num_inference_steps": 6, "previews": 2}).json()["id"]
    told = list(events(client, job))
    steps = [data for name, data in told if name == "step"]
    assert [one["step"] for one in steps] == [1, 2, 3, 4, 5, 6]
    shown = [one for one in steps if "preview" in one]
    assert [(one["step"], one["preview_index"]) for one in shown] == [(2, 0), (4, 1)]
    assert pixels(base64.b64decode(shown[-1]["preview"])).shape[2] == 3
    assert [told[0][0], told[-1][0]] == ["status", "done"]
    assert over(client, before)["status"] == "done"


def test_a_cancelled_run_stops(client: httpx.Client) -> None:
    """Else the next image would wait for it: 150 steps of 16 images take minutes."""
    job = client.post("/jobs", json=LONG | {"num_images_per_prompt": 16}).json()["id"]
    begun(client, job)
    client.delete(f"/jobs/{job}")
    assert over(client, job)["status"] == "cancelled"
    next_one = client.post("/jobs", json=TASK).json()["id"]
    wait_for(lambda: client.get(f"/jobs/{next_one}").json()["status"] == "done")


def test_a_wrong_request_is_told_with_its_field(client: httpx.Client) -> None:
    said = make(client, width=60)
    assert (said["status"], said["error"]["field"]) == ("failed", "width")


def test_a_worker_lets_go_of_the_model_that_it_used_longest_ago(client: httpx.Client) -> None:
    for wanted, other in (("small", "shapes"), ("shapes", "small")):
        assert make(client, model=wanted)["status"] == "done"
        assert numbers(client, "sdrt_model_open") == {
            f'{{model="{wanted}"}}': 1.0,
            f'{{model="{other}"}}': 0.0,
        }


def test_a_job_survives_its_worker(local: Running, client: httpx.Client) -> None:
    job = client.post("/jobs", json=LONG).json()["id"]
    behind = client.post("/jobs", json=TASK).json()["id"]
    begun(client, job)
    kill_replica(local)
    assert over(client, job)["status"] == "done"
    assert over(client, behind)["status"] == "done"
    assert numbers(client, "sdrt_worker_restarts_total") == {"": 1.0}


def test_a_job_that_kills_every_worker_is_told(local: Running, client: httpx.Client) -> None:
    job = client.post("/jobs", json=LONG | {"num_images_per_prompt": 16}).json()["id"]
    for _ in range(3):
        before = deaths(local)
        begun(client, job)
        kill_replica(local)
        wait_for(lambda before=before: deaths(local) > before)
    said = over(client, job)
    assert (said["status"], said["error"]["code"]) == ("failed", "WorkerError"), said
    assert make(client)["status"] == "done"
