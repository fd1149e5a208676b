"""Work that the server does itself, without a worker: how much of it may wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from sdrt.adapters.lora_folder import LoraFolder
from sdrt.errors import RequestError
from sdrt.serve.app import make_app
from sdrt.serve.options import Limits, ServeOptions
from sdrt.serve.served_model import ServedModel
from sdrt.serve.service import Service
from tests.serve.core.test_jobs import png

EXTRAS = "/sdapi/v1/extra-single-image"


def application(lora_dir: Path | None = None, **limits: Any) -> FastAPI:
    """A server of which no worker was started."""
    models = [ServedModel(name="shapes", source="shapes")]
    options = ServeOptions(models=models, lora_dir=lora_dir, limits=Limits(**limits))
    app = make_app(options)
    app.state.service = Service(options)
    return app


def asking(app: FastAPI, test: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]) -> None:
    """Run a test with a client of an application, in its event loop."""

    async def run() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await test(client)

    asyncio.run(run())


def test_one_image_is_worked_on_at_a_time_and_few_wait() -> None:
    app = application(side_work=2)
    release, counts = threading.Event(), []

    def work() -> None:
        counts.append(1)
        assert release.wait(60)

    async def test(client: httpx.AsyncClient) -> None:
        side = app.state.service.side_work
        first = asyncio.ensure_future(side.do(work))
        waits = asyncio.ensure_future(client.post(EXTRAS, json={"image": png("red", 8)}))
        while len(side) < 2:
            await asyncio.sleep(0.01)
        assert not waits.done()
        for path, asked in (
            (EXTRAS, {"json": {"image": png("red", 8)}}),
            ("/sdapi/v1/png-info", {"json": {"image": png("red", 8)}}),
            ("/metadata", {"content": b"a text"}),
        ):
            answer = await client.post(path, **asked)  # type: ignore[arg-type]
            assert (answer.status_code, int(answer.headers["retry-after"])) == (429, 1)
            assert "2 images wait" in answer.json()["detail"]
        release.set()
        await first
        assert (await waits).status_code == 200
        assert (await client.post(EXTRAS, json={"image": png("red", 8)})).status_code == 200

    asking(app, test)
    assert counts == [1]


@pytest.mark.parametrize("count", [1, 3])
def test_an_error_frees_the_place(count: int) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for _ in range(count):
            assert (await client.post(EXTRAS, json={"image": "AAAA"})).status_code == 400

    asking(application(side_work=1), test)


@pytest.mark.parametrize("path", ["/jobs", "/v1/images/generations"])
def test_a_folder_of_loras_that_answers_slowly_keeps_nobody_else_waiting(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, release = threading.Event(), threading.Event()

    def find(folder: LoraFolder, name: str) -> Path:
        looks.set()
        assert release.wait(10)
        raise RequestError("there is none")

    monkeypatch.setattr(LoraFolder, "find", find)

    async def test(client: httpx.AsyncClient) -> None:
        asked = {"prompt": "a red circle", "lora": [{"name": "nosuch"}]}
        answer = asyncio.ensure_future(client.post(path, json=asked))
        while not looks.is_set():
            await asyncio.sleep(0.01)
        assert (await client.get("/healthz")).status_code == 200
        assert not answer.done()
        release.set()
        assert (await answer).status_code == 400

    asking(application(lora_dir=tmp_path), test)
