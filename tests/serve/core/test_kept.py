"""What the server keeps of jobs that are over, without one that runs."""

from __future__ import annotations

import asyncio

from sdrt.serve.job import Job
from sdrt.serve.options import Limits, ServeOptions
from sdrt.serve.served_model import ServedModel
from sdrt.serve.service import Service
from sdrt.serve.task import ImageTask, Made, MadeImage


def service(**limits: float) -> Service:
    models = [ServedModel(name="shapes", source="shapes")]
    return Service(ServeOptions(models=models, limits=Limits(**limits)))  # type: ignore[arg-type]


async def made(keeper: Service, size: int) -> Job:
    """A job that a worker has made, with an image of `size` bytes."""
    job = keeper.submit(
        ImageTask(model="shapes", settings={"image": b"given", "masks": [b"given"], "seed": 1}), "me"
    )
    job.start()
    image = MadeImage(data=bytes(size), seed=1, width=8, height=8, text="")
    job.finish(Made(images=(image,), settings={}, seconds=1.0))
    for _ in range(5):  # those who wait for it have their turn
        await asyncio.sleep(0)
    return job


def test_results_make_room_for_newer_ones_although_nobody_asks() -> None:
    async def test() -> None:
        keeper = service(kept_bytes=100)
        jobs = [await made(keeper, 40) for _ in range(4)]
        assert [*keeper.jobs("me")] == [jobs[3], jobs[2]]

    asyncio.run(test())


def test_a_result_of_any_size_can_be_fetched() -> None:
    async def test() -> None:
        keeper = service(kept_bytes=100)
        await made(keeper, 40)
        large = await made(keeper, 1000)
        assert keeper.job(large.id, "me") is large
        assert [*keeper.jobs("me")] == [large]

    asyncio.run(test())


def test_an_address_ends_with_its_image() -> None:
    async def test() -> None:
        keeper = service(kept_seconds=600)
        job = await made(keeper, 40)
        assert keeper.signed_job(job.id) is job
        assert job.finished is not None
        job.finished -= 601
        assert keeper.signed_job(job.id) is None

    asyncio.run(test())


def test_images_of_the_user_are_not_kept() -> None:
    async def test() -> None:
        job = await made(service(), 40)
        assert dict(job.task.settings) == {"seed": 1}

    asyncio.run(test())
