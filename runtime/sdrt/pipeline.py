"""`StableDiffusionPipeline`, which programs call. Its arguments are those of diffusers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sdrt.adapters.adaptation import NO_ADAPTATION
from sdrt.common.arguments import takes
from sdrt.common.cancelling import Cancel, is_set_of
from sdrt.common.frames import forgets_locals
from sdrt.common.messages import wrong_value
from sdrt.common.notices import Notices, Notify
from sdrt.foreign.methods import DiffusersMethods, refuse_dtype
from sdrt.model_folder.folder import TAESD_DECODER
from sdrt.model_folder.loading import FileLoading, Loading
from sdrt.model_folder.model import Model
from sdrt.onnx.providers import SessionConfig
from sdrt.request.request import Request, without_checker
from sdrt.request.setting import settings_of
from sdrt.request.table import Arguments
from sdrt.run.adapters import Adapters
from sdrt.run.callback import StepCallback
from sdrt.run.generation import Generation
from sdrt.run.generators import mark_used, with_generator
from sdrt.run.guarded import guarded
from sdrt.run.image_prompt_methods import ImagePromptMethods, ImagePromptState
from sdrt.run.lora_methods import LoraMethods
from sdrt.run.memory import ComponentCache, MakeComponents
from sdrt.run.planned import PlannedRequest
from sdrt.run.refiner import Refiners
from sdrt.run.result import Events, GenerationStep, StableDiffusionPipelineOutput
from sdrt.schedulers import Scheduler, resolve_scheduler, split_name, unknown_scheduler
from sdrt.schedulers.diffusers_classes import config_inside, without_source
from sdrt.vae.preview import LinearPreview, Preview

if TYPE_CHECKING:
    from sdrt.onnx.session import Component

__all__ = ["GenerationStep", "StableDiffusionPipeline", "StableDiffusionPipelineOutput"]

SchedulerLike = str | Path | Mapping[str, Any] | Scheduler


class StableDiffusionPipeline(LoraMethods, ImagePromptMethods, DiffusersMethods):
    """Makes images with a model folder. Several threads may call it at once.

    Make a pipeline with `from_pretrained`. It creates its ONNX Runtime sessions at first use, or in `load`. A run keeps
    the sessions that it started with, even if another thread calls `to` or `close` meanwhile.
    """

    # Without a dict, an attribute that is assigned by mistake is an error.
    __slots__ = (
        *("model", "_notices", "_capabilities", "_scheduler_config", "_scheduler", "_preview"),
        *("_cache", "_adapters", "_image_prompts", "_refiners", "_generation", "_filters", "__weakref__"),
    )

    def __init__(
        self,
        model: Model,
        config: SessionConfig,
        *,
        verify: bool = True,
        notify: Notify | None = None,
        make_components: MakeComponents | None = None,
    ) -> None:
        self.model, self._notices, self._capabilities = model, Notices(notify), model.capabilities
        self._scheduler_config = model.scheduler_config
        self._scheduler: Scheduler | None = None
        self._preview: Preview | None = None
        self._filters, self._image_prompts = True, ImagePromptState()
        self._cache = ComponentCache(model, config, self._notices, verify=verify, make=make_components)
        self._adapters = Adapters(self._cache, self._notices)
        self._refiners = Refiners(self._cache, notify, verify=verify)
        self._generation = Generation(self._cache, self._notices)

    @classmethod
    @takes(Loading)
    def from_pretrained(cls, *values: Any, **named: Any) -> StableDiffusionPipeline:
        """Open a model: a folder, a checkpoint, an embedded model ("shapes") or a hub id.

        A torch checkpoint runs directly: its graphs are built in memory, and no files are written. For providers that
        compile files (tensorrt, openvino, coreml), it is exported into the cache once.

        Raises:
            ModelError, ProviderError, RequestError.
        """
        return cls._opened(Loading(*values, **named))

    @classmethod
    @takes(FileLoading)
    def from_single_file(cls, *values: Any, **named: Any) -> StableDiffusionPipeline:
        """Open a single-file checkpoint, as A1111 and ComfyUI use it.

        Raises:
            ModelError, ProviderError, RequestError.
        """
        return cls._opened(FileLoading(*values, **named))

    @classmethod
    def _opened(cls, given: Loading) -> StableDiffusionPipeline:
        from sdrt.onnx.engine import settle

        # Check the provider first, before anything is downloaded or exported.
        config = settle(given.session_config, Notices(given.notify))
        made = cls(given.resolved(config), config, verify=given.verify, notify=given.notify)
        made.safety_checker = given.safety_checker
        return made

    @takes(Arguments)
    @forgets_locals
    def __call__(self, *values: Any, **named: Any) -> StableDiffusionPipelineOutput:
        """Make images. The arguments are those of diffusers, and more.

        Raises:
            RequestError, ComponentError, OutOfMemoryError, ProviderError, RunCancelledError.
        """
        given = Arguments(*values, **named)
        request = Request(**{row.name: getattr(given, row.name) for row in settings_of(Request)})
        callback = StepCallback(given.callback_on_step_end, given.callback_on_step_end_tensor_inputs)
        scheduler = self.scheduler_for(given.scheduler, given.spacing)
        request = with_generator(request, given, lambda: self.plan(request, scheduler=scheduler))
        events = self.stream(request, scheduler=scheduler, cancel=given.cancel)
        # Only now, when the request is known to be right.
        mark_used(given.generator)
        return callback.run(self, events)

    def plan(
        self, request: Request, *, scheduler: SchedulerLike | None = None, spacing: str | None = None
    ) -> PlannedRequest:
        """Check that the model can make a request, fill in its defaults and plan its steps, without running it.

        Pass the result to `stream`, which then does not check and plan again.

        Raises:
            RequestError: the model or the scheduler cannot make the request.
        """
        if not isinstance(request, Request):
            raise wrong_value("request", request, "an sdrt.Request")
        name = request.hires_scheduler
        if name is not None and split_name(name)[0] is None:
            # Metadata may name it, so it is never a file.
            raise unknown_scheduler(name, "hires_scheduler")
        other = None if name is None else self._resolved(name)
        chosen = self.scheduler_for(scheduler, spacing)
        request = request if self._filters else without_checker(request)
        refiner, adaptation = self._refiners.of(request), self._adapters.of(request)
        second = NO_ADAPTATION if refiner is None else self._adapters.of_refiner(request, refiner.cache)
        scaled = self._with_image_scale(request)
        return PlannedRequest.of(scaled, chosen, self.model, other, refiner, adaptation, second)

    def stream(
        self,
        request: Request | PlannedRequest,
        *,
        scheduler: SchedulerLike | None = None,
        spacing: str | None = None,
        cancel: Cancel | None = None,
    ) -> Events:
        """Run `request`. Yields a `GenerationStep` after each step, and at the end the result.

        Closing the generator stops the run between two steps, and `cancel` at any time: it is an object with
        `is_set()`, such as a `threading.Event`, or a function. A request from `plan` already has its scheduler and
        spacing.

        Raises:
            RequestError: the model or the scheduler cannot make the request. This is raised by the call itself, all
                other errors by the first or a later step.
            RunCancelledError: `cancel` is set.
        """
        is_cancelled = is_set_of(cancel)
        # Plan in this function, which is not a generator, so that errors are raised at once.
        if not isinstance(request, PlannedRequest):
            planned = self.plan(request, scheduler=scheduler, spacing=spacing)
        else:
            planned = request
            planned.check_for(self.model, planned_again=(scheduler, spacing) != (None, None))
        self._refiners.keep_only(planned.refiner)
        texts = self._adapters.texts(planned.request.completed, planned.request.adaptation)
        origin = planned.origin(self._scheduler_config, texts)
        events = self._generation.events(planned.request, planned.passes, origin, planned.model)
        return guarded(events, is_cancelled, planned.num_evaluations)

    def num_evaluations(
        self, request: Request, *, scheduler: SchedulerLike | None = None, spacing: str | None = None
    ) -> int | None:
        """How many steps `stream` yields for a request; None if the scheduler chooses its steps as it goes.

        Raises `RequestError` as `stream` does.
        """
        return self.plan(request, scheduler=scheduler, spacing=spacing).num_evaluations

    def load_textual_inversion(self, path: str | Path, token: str | None = None) -> list[str]:
        """Load a textual inversion, and return the words that prompts can use for it.

        `path` is a `.safetensors` file of diffusers, A1111, ComfyUI or a trainer. `token` names its word, if the file
        contains only one. By default, the word is the name in the file, or the file's own name if it has none, as in
        files of A1111.

        Raises:
            ModelNotFoundError, UnsupportedModelError, RequestError.
        """
        return self._cache.load_words(path, token)

    def unload_textual_inversion(self, tokens: str | Sequence[str] | None = None) -> None:
        """Forget the words of textual inversions: these, or all. Runs that have begun still know them.

        Raises:
            RequestError: a word was not loaded.
        """
        self._cache.remove_words(tokens)

    @property
    def preview(self) -> Preview:
        """A fast and approximate decoder: `preview(latents)` turns latents [N, C, h, w] into images.

        Use it on a step's `denoised`. The images are coarse, unless the model was exported with a TAESD.

        Raises:
            UnsupportedModelError: the model was exported without data for previews.
        """
        if self.model.has(TAESD_DECODER):
            return self._cache.get().taesd
        if self._preview is None:
            self._preview = LinearPreview.of(self.model)
        return self._preview

    def scheduler_for(self, scheduler: SchedulerLike | None = None, spacing: str | None = None) -> Scheduler:
        """The scheduler that a call with these arguments uses. Raises `RequestError` for unknown names."""
        if scheduler is None and spacing is None:
            return self.scheduler
        chosen = self.scheduler if scheduler is None else scheduler
        return self._resolved(chosen, spacing)

    def _resolved(self, scheduler: SchedulerLike | None, spacing: str | None = None) -> Scheduler:
        """The scheduler that is meant, if the model's family is trained for its noise schedule."""
        found = resolve_scheduler(config_inside(scheduler), self._scheduler_config, spacing=spacing)
        found = without_source(found, self._scheduler_config)
        self.model.family.check_noise_schedule(found.noise_schedule, found.sampler.class_name)
        return found

    def to(
        self,
        provider: str,
        provider_options: Mapping[str, Any] | None = None,
        provider_library: str | os.PathLike[str] | None = None,
    ) -> StableDiffusionPipeline:
        """Use `provider` from the next call on, with these options or its default ones. Returns the pipeline.

        `provider_library` is that of `from_pretrained`.

        After an error, the pipeline keeps its provider.

        Raises:
            ProviderError: the provider is unknown or not available.
            RequestError: the provider does not have these options.
        """
        from sdrt.onnx.engine import settle

        refuse_dtype(provider, provider_options)
        options = {} if provider_options is None else provider_options
        config = replace(
            self._cache.config,
            provider=provider,
            provider_options=options,
            provider_library=provider_library,
        )
        self._cache.configure(settle(config, self._notices))
        return self

    @forgets_locals
    def load(self, planned: PlannedRequest | None = None) -> StableDiffusionPipeline:
        """Create all sessions that text to image needs, or a `planned` request. Returns the pipeline.

        If they do not fit into memory together, each is created when it is needed from now on, unless `low_vram` is
        False.

        Raises:
            OutOfMemoryError, ModelError, ProviderError.
        """
        self._cache.load(None if planned is None else planned.request)
        return self

    @forgets_locals
    def tune(self) -> StableDiffusionPipeline:
        """Write every graph of the model into the cache as this machine's CPU runs it, as `sdrt tune` does.

        From then on, its sessions are created in a fraction of the time, in this and other processes, which share the
        weights. With ControlNets and IP-Adapters, the U-Net's graph for all of them is tuned too, and with
        `vae_tiling=True` the VAE for tiles. Returns the pipeline.

        Raises:
            ProviderError: the pipeline does not run on the CPU.
            ModelError, OutOfMemoryError: a graph cannot be loaded.
        """
        self._cache.tune()
        return self

    @forgets_locals
    def warm_up(
        self,
        width: int | None = None,
        height: int | None = None,
        num_images_per_prompt: int = 1,
        guidance_scale: float | None = None,
    ) -> StableDiffusionPipeline:
        """Prepare for calls with this size, so that the first one takes no longer than the others.

        This creates the sessions, makes images in two steps and discards them. During the first runs at a size,
        providers choose kernels, build engines and record CUDA graphs. Returns the pipeline.

        Raises:
            RequestError, ComponentError, OutOfMemoryError, ProviderError.
        """
        request = Request(
            prompt="",
            width=width,
            height=height,
            num_images_per_prompt=num_images_per_prompt,
            guidance_scale=guidance_scale,
            num_inference_steps=2,
            seed=0,
        )
        for _ in self.stream(request):
            pass
        return self

    def close(self) -> None:
        """Free the sessions as soon as no run uses them. A later call creates them again."""
        self._cache.close()
        self._refiners.keep_only(None)

    def __enter__(self) -> StableDiffusionPipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def graphs(self) -> tuple[Component, ...]:
        """The components whose sessions are open."""
        components = self._cache.current
        return () if components is None else components.graphs

    @property
    def float32_retries(self) -> dict[str, int]:
        """How many runs of each component were made in float32, by component name.

        A run is repeated in float32 when it overflows float16. The component then stays in float32 until the images
        are finished.
        """
        return dict(self._cache.float32_retries)

    @property
    def provider(self) -> str:
        """The name of the provider in use. For "auto", this is the provider that was chosen."""
        return self._cache.config.name

    @property
    def threads(self) -> int | None:
        """The number of CPU threads: the one that was asked for, but no more than CPUs. None for every core."""
        return self._cache.config.threads

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler of calls that name none. It is the model's, unless you assign another."""
        if self._scheduler is None:
            self._scheduler = self._resolved(None)
        return self._scheduler

    @scheduler.setter
    def scheduler(self, value: SchedulerLike) -> None:
        self._scheduler = self._resolved(value)
