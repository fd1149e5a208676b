"""A replica of the deployment: makes images on a node of the cluster, with the models that requests name."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdrt.errors import ProviderError
from sdrt.serve.make import failure_of
from sdrt.serve.models import opened_model
from sdrt.serve.on_ray.cluster import Cluster, as_the_driver
from sdrt.serve.task import Failure
from sdrt.serve.worker_process import (
    Cancelled,
    Done,
    Failed,
    Ready,
    Run,
    Stepped,
    WorkerSetup,
    answer,
)

if TYPE_CHECKING:
    from sdrt.pipeline import StableDiffusionPipeline

__all__ = ["Answered", "RaySetup", "Replica"]

_PATIENCE = 60.0
"""Seconds in which a run should stop when it is cancelled. The process ends if it does not."""


@dataclass(frozen=True, kw_only=True)
class RaySetup:
    """What the deployment needs to know.

    Attributes:
        cluster: the cluster, and the most replicas.
        worker: the models, and how to open them.
        app: the name of the application on the cluster.
        least: the fewest replicas.
        models: how many models a replica keeps open.
        longest: seconds that a run may take. A replica that is to end may go on for as long.
    """

    cluster: Cluster
    worker: WorkerSetup
    app: str
    least: int
    models: int
    longest: float


@dataclass(frozen=True)
class Answered:
    """What became of a run, and on which replica."""

    replica: str
    message: Done | Failed | Cancelled


class Replica:
    """The class of the deployment. Ray gives each replica one run at a time."""

    def __init__(self, setup: RaySetup) -> None:
        from ray import serve

        self._setup = setup
        self._notices: list[str] = []
        self._open: dict[str, _OpenModel] = {}
        self._unfit, self._is_opening = _unfit(setup.cluster), False

        async def opened(name: str) -> _OpenModel:
            return await asyncio.to_thread(self._opened, name)

        # Not a method, because the number of models is known only now.
        self._model = serve.multiplexed(opened, max_num_models_per_replica=setup.models)
        self._id = str(serve.get_replica_context().replica_id.unique_id)

    async def open(self, name: str | None) -> Ready:
        """Open a model, if one is named, and say whether this replica takes runs."""
        if self._unfit is not None or name is None:
            return Ready(None, self._unfit)
        try:
            model = await self._model(name)
            loaded = await asyncio.to_thread(model.pipeline.load)
        except Exception as error:  # told by the server, which then ends
            return Ready(None, failure_of(error))
        return Ready(loaded.provider, open_models=(name,))

    async def make(self, run: Run) -> AsyncIterator[Stepped | Answered]:
        """Make the images of a run: yields its steps, then what became of it. It stops when Ray cancels it."""
        loop, stop = asyncio.get_running_loop(), threading.Event()
        said: asyncio.Queue[Any] = asyncio.Queue()

        def tell(message: Any) -> None:
            loop.call_soon_threadsafe(said.put_nowait, message)

        def open_now(name: str) -> StableDiffusionPipeline:
            model: _OpenModel = asyncio.run_coroutine_threadsafe(self._model(name), loop).result()
            return model.pipeline

        work = loop.run_in_executor(None, lambda: tell(self._answer(run, open_now, tell, stop)))
        try:
            while isinstance(message := await said.get(), Stepped):
                yield message
            yield Answered(self._id, message)
        finally:
            stop.set()
            await self._ended(work)

    def _answer(
        self,
        run: Run,
        opened: Callable[[str], StableDiffusionPipeline],
        tell: Callable[[Any], object],
        stop: threading.Event,
    ) -> Done | Failed | Cancelled:
        if self._unfit is not None:
            return Failed(run.number, self._unfit, ())
        self._notices.clear()
        return answer(
            run,
            opened,
            lambda: tuple(self._open),
            emit=lambda progress: tell(Stepped(run.number, progress)),
            cancel=stop.is_set,
            notices=self._notices,
        )

    async def _ended(self, work: asyncio.Future[None]) -> None:
        """Wait until a run has ended. If it does not, nothing else can be made here, so the process ends."""
        while not (await asyncio.wait((work,), timeout=_PATIENCE))[0]:
            if not self._is_opening:  # opening may take long, and cannot be stopped
                os._exit(1)

    def _opened(self, name: str) -> _OpenModel:
        worker, self._is_opening = self._setup.worker, True
        try:
            pipeline = opened_model(worker.models[name], worker.options, self._notices.append)
        finally:
            self._is_opening = False
        model = self._open[name] = _OpenModel(pipeline, lambda: self._open.pop(name, None))
        return model


class _OpenModel:
    """A model as Ray keeps it. Ray calls `__del__` to let go of it, and Python does so once more."""

    def __init__(self, pipeline: StableDiffusionPipeline, closed: Callable[[], object]) -> None:
        self.pipeline, self._closed, self._is_open = pipeline, closed, True

    def __del__(self) -> None:
        if self._is_open:
            self._is_open = False
            self.pipeline.close()
            self._closed()


def _unfit(cluster: Cluster) -> Failure | None:
    """Why this node cannot make images."""
    try:
        as_the_driver(cluster)
    except ProviderError as error:
        return failure_of(error)
    return None
