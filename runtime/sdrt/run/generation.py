"""Passes of a request, one after another, each tried with less where memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdrt.common import rng
from sdrt.common.notices import Notices
from sdrt.errors import OutOfMemoryError
from sdrt.onnx.error_messages import images_failure
from sdrt.onnx.providers import PROVIDERS
from sdrt.request.fitted import FittedRequest
from sdrt.run.component_store import ComponentStore
from sdrt.run.multi_pass import make_twice, outpaint
from sdrt.run.one_pass import Pass, decode, denoise, encode, prepare
from sdrt.run.origin import Origin
from sdrt.run.preparation import Prepared
from sdrt.run.result import Events, StableDiffusionPipelineOutput
from sdrt.schedulers import Plan, Scheduler

__all__ = ["Generation"]


class Generation:
    """Makes the images of fitted requests, of one model."""

    def __init__(self, store: ComponentStore, notices: Notices) -> None:
        self._store, self._notices = store, notices
        self._capabilities = store.model.capabilities

    def events(
        self,
        request: FittedRequest,
        scheduler: Scheduler,
        plans: Sequence[Plan],
        origin: Origin | None = None,
    ) -> Events:
        """Yield each step, then the result, which says its `origin`. `plans` are those of `plan_passes`."""

        def one_pass(part: FittedRequest, plan: Plan) -> Events:
            return self._with_what_fits(part, scheduler, plan, origin)

        try:
            if request.outpaint is not None:
                yield from outpaint(request, plans, one_pass, self._capabilities)
            elif request.hires_scale is not None:
                yield from make_twice(request, plans, one_pass, self._capabilities)
            else:
                yield from one_pass(request, plans[0])
        except OutOfMemoryError:
            # What was taken until then would be in the way of a smaller request.
            self._store.close()
            raise
        except MemoryError as error:
            # NumPy's own: latents and images are its arrays.
            raise images_failure(error) from error

    def _with_what_fits(
        self, request: FittedRequest, scheduler: Scheduler, plan: Plan, origin: Origin | None
    ) -> Events:
        """Make one pass, and begin it again with less where memory runs out in its first step."""
        timings: dict[str, Any] = {}
        try:
            yield from self._one_pass(request, scheduler, plan, origin, timings)
            return
        except MemoryError as error:
            # After the first evaluation others would be told of the same steps again.
            if timings.get("unet") or not self._store.take_less(request, _typed(error)):
                raise
        # Not above: the error's frames hold what has to be let go of first.
        yield from self._one_pass(request, scheduler, plan, origin, {})

    def _one_pass(
        self,
        request: FittedRequest,
        scheduler: Scheduler,
        plan: Plan,
        origin: Origin | None,
        timings: dict[str, Any],
    ) -> Events:
        job = Pass(
            request=request,
            scheduler=scheduler,
            plan=plan,
            model=self._store.model,
            components=self._store.for_request(request),
            notices=self._notices,
            generators=[rng.Generator(seed) for seed in request.seeds],
            timings=timings,
        )
        self._tell_of_warming_up(request)
        conditioning = encode(job)
        prepared = prepare(job)
        latents = yield from denoise(job, conditioning, prepared)
        yield StableDiffusionPipelineOutput(
            images=self._decode(job, latents, prepared),
            seeds=list(request.seeds),
            request=request,
            timings=timings,
            origin=origin,
        )

    def _decode(self, job: Pass, latents: Any, prepared: Prepared) -> Any:
        """Decode, once more with less where memory runs out: the steps are not lost."""
        try:
            return decode(job, job.components, latents, prepared.canvases)
        except MemoryError as error:
            if not self._store.take_less(job.request, _typed(error)):
                raise
        # Not above: the error's frames hold what has to be let go of first.
        components = self._store.for_request(job.request)
        return decode(job, components, latents, prepared.canvases)

    def _tell_of_warming_up(self, request: FittedRequest) -> None:
        """Say it once for a size, where the provider does more in its first run than in others."""
        name = self._store.config.name
        if (what := PROVIDERS[name].warms_up) and self._store.is_first_at(request):
            self._notices.inform(
                f"warming up for {request.width}x{request.height}, {request.num_images} at once, on {name}: {what}"
            )


def _typed(error: MemoryError) -> OutOfMemoryError:
    """A component's failure, or NumPy's own: latents and pictures are its arrays."""
    return error if isinstance(error, OutOfMemoryError) else images_failure(error)
