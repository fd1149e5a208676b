"""Makes the images of a request: runs its passes, and repeats a pass with `low_vram` if memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sdrt.common import rng
from sdrt.common.limits import is_of_memory
from sdrt.common.notices import Notices
from sdrt.errors import OutOfMemoryError
from sdrt.onnx.providers import PROVIDERS
from sdrt.request.fitted import FittedRequest
from sdrt.run.memory import ComponentCache
from sdrt.run.multi_pass import PlannedPass, make_twice, outpaint
from sdrt.run.one_pass import Pass, Timings, memory_error, run_pass
from sdrt.run.origin import Origin
from sdrt.run.result import Events
from sdrt.text.unread import unread

__all__ = ["Generation"]


class Generation:
    """Makes the images of requests with one model."""

    def __init__(self, cache: ComponentCache, notices: Notices) -> None:
        self._cache, self._notices = cache, notices
        self._capabilities = cache.model.capabilities
        if advice := self._capabilities.defaults.advice:
            notices.warn(advice)

    def events(
        self,
        request: FittedRequest,
        plans: Sequence[PlannedPass],
        origin: Origin | None = None,
    ) -> Events:
        """Yield each step, then the result. Most requests have one pass.

        Args:
            request: the request, completed by `fit`.
            plans: the passes, from `plan_passes`.
            origin: the model and the settings, which the result keeps for its metadata.
        """

        def one_pass(request: FittedRequest, planned: PlannedPass) -> Events:
            return self._one_pass(request, planned, origin)

        self._tell_of_prompts(request)
        try:
            if request.outpaint is not None:
                yield from outpaint(request, plans, one_pass, self._capabilities)
            elif request.hires_scale is not None:
                yield from make_twice(request, plans, one_pass, self._capabilities)
            else:
                yield from one_pass(request, plans[0])
        except Exception as error:
            # NumPy and late imports raise errors of their own.
            if not is_of_memory(error):
                raise
            advised = self._cache.with_advice(memory_error(error), request)
            if isinstance(error, OutOfMemoryError):
                # Free the memory for the next request, which may be smaller.
                self._cache.close()
            raise advised from error

    def _one_pass(self, request: FittedRequest, planned: PlannedPass, origin: Origin | None) -> Events:
        """Run one pass. If memory runs out before its first step, run it once more with `low_vram`."""
        timings: Timings = {}
        try:
            yield from run_pass(self._prepare(request, planned, origin, timings))
            return
        except MemoryError as error:
            # Once a step is done the caller has seen it, and must not see it again.
            has_steps = bool(timings.get("unet"))
            if has_steps or not self._cache.switch_to_low_vram(request, memory_error(error)):
                raise
        # Not inside `except`: the error's traceback would keep the old sessions in memory.
        yield from run_pass(self._prepare(request, planned, origin, {}))

    def _prepare(
        self,
        request: FittedRequest,
        planned: PlannedPass,
        origin: Origin | None,
        timings: Timings,
    ) -> Pass:
        components = self._cache.for_request(request)
        if origin is not None:
            # Of these components, because the pipeline may get other settings and words meanwhile.
            origin = replace(
                origin, vae_tiling=components.config.vae_tiling, embeddings=components.embedding_files
            )
        job = Pass(
            request=request,
            scheduler=planned.scheduler,
            plan=planned.plan,
            cache=self._cache,
            components=components,
            notices=self._notices,
            generators=[rng.Generator(seed) for seed in request.seeds],
            timings=timings,
            origin=origin,
        )
        self._report_warming_up(request)
        return job

    def _tell_of_prompts(self, request: FittedRequest) -> None:
        """Say what the prompts hold that is not read as words."""
        for message in unread(
            request.prompts, request.negative_prompts, request.prompt_syntax, self._cache.words
        ):
            self._notices.warn(message)

    def _report_warming_up(self, request: FittedRequest) -> None:
        """Tell the user if the first run at this size will take longer. Only some providers warm up."""
        name = self._cache.config.name
        if (reason := PROVIDERS[name].warms_up) and self._cache.is_first_run(request):
            self._notices.inform(
                f"warming up for {request.width}x{request.height}, {request.num_images} at once, on {name}: {reason}"
            )
