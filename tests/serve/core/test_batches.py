"""Jobs that share a run. After two runs of a kind of task, the server tries one of two tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from sdrt import StableDiffusionPipeline
from tests.serve.core.running import Running, serving, wait_for
from tests.serve.core.test_jobs import TASK, over, pixels

PROMPTS = ("a red circle", "a blue square")


@pytest.fixture(scope="module")
def batching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("batching"), "--max-batch", "4") as running:
        yield running


def behind(client: httpx.Client, task: dict[str, Any]) -> str:
    """A long job that runs, after two runs of `task`, so that the next two tasks like it share one."""
    for _ in range(2):
        over(client, client.post("/jobs", json=task).json()["id"])
    first: str = client.post("/jobs", json=TASK | {"num_inference_steps": 60}).json()["id"]
    wait_for(lambda: client.get(f"/jobs/{first}").json()["step"] >= 1)
    return first


def together(server: Running, tasks: list[dict[str, Any]]) -> list[tuple[dict[str, Any], list[np.ndarray]]]:
    """Jobs that wait behind another one, until they are over, with their images."""
    with server.client() as client:
        first = behind(client, tasks[0])
        ids = [client.post("/jobs", json=task).json()["id"] for task in tasks]
        client.delete(f"/jobs/{first}")
        said = [over(client, job) for job in ids]
        images = [[pixels(client.get(one["url"]).content) for one in job.get("images", ())] for job in said]
        return list(zip(said, images, strict=True))


def test_jobs_that_differ_in_prompt_and_seed_share_a_run(batching: Running) -> None:
    tasks = [TASK | {"prompt": prompt, "seed": seed, "eta": 0.01} for seed, prompt in enumerate(PROMPTS)]
    made = together(batching, tasks)
    assert max(job["started"] for job, _ in made) - min(job["started"] for job, _ in made) < 0.01
    with StableDiffusionPipeline.from_pretrained("shapes") as pipeline:
        for task, (job, (image,)) in zip(tasks, made, strict=True):
            own = np.asarray(pipeline(**task).images[0])
            # Other shapes of matrices round otherwise.
            assert np.abs(own.astype(int) - image).max() <= 2
            assert job["images"][0]["seed"] == task["seed"]
            assert job["images"][0]["parameters"].startswith(task["prompt"])


@pytest.mark.parametrize(
    "other",
    [{"num_inference_steps": 4}, {"guidance_scale": 1.0}, {"negative_prompt": "red"}, {"priority": 1}],
)
def test_jobs_that_differ_otherwise_do_not(batching: Running, other: dict[str, Any]) -> None:
    alike = TASK | {"guidance_rescale": 0.01 * len(str(other))}
    first, second = (job for job, _ in together(batching, [alike, alike | other]))
    assert (first["status"], second["status"]) == ("done", "done")
    assert abs(first["started"] - second["started"]) > 0.01


def test_a_wrong_prompt_does_not_spoil_the_others(batching: Running) -> None:
    syntax = {"prompt_syntax": "compel"}
    good, bad = TASK | syntax, TASK | syntax | {"prompt": '("a", "b").blend(1)'}
    (made, (image,)), (failed, _) = together(batching, [good, bad])
    assert made["status"] == "done"
    assert image.shape == (128, 128, 3)
    assert failed["status"] == "failed"
    assert failed["error"]["field"] == "prompt"


def test_a_cancelled_job_does_not_stop_the_others(batching: Running) -> None:
    with batching.client() as client:
        long = TASK | {"num_inference_steps": 30}
        first = behind(client, long)
        one, two = (client.post("/jobs", json=long | {"seed": seed}).json()["id"] for seed in (1, 2))
        client.delete(f"/jobs/{first}")
        wait_for(lambda: client.get(f"/jobs/{two}").json()["step"] >= 1)
        assert client.delete(f"/jobs/{one}").json()["status"] == "cancelled"
        assert over(client, two)["status"] == "done"
