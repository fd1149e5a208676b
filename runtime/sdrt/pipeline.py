"""Text to picture: encode → start latents → denoise → decode."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt import rng
from sdrt.config import AUTO, PROVIDERS, SessionConfig
from sdrt.denoiser import INPUTS, OUTPUT, Denoiser
from sdrt.errors import ComponentError, OutOfMemoryError, RequestError
from sdrt.failures import pictures_failure
from sdrt.image import to_pil
from sdrt.limits import Limits
from sdrt.model import ModelFolder
from sdrt.notices import Notices, Notify
from sdrt.request import Request
from sdrt.result import GenerationStep, StableDiffusionPipelineOutput, callback_answer, callback_tensors
from sdrt.schedulers import Plan, Scheduler, resolve_scheduler
from sdrt.source import resolve_model
from sdrt.wording import brief

if TYPE_CHECKING:
    from PIL import Image

    from sdrt.components import Components

__all__ = ["GenerationStep", "StableDiffusionPipeline", "StableDiffusionPipelineOutput"]

Array = NDArray[np.float32]
Callback = Callable[["StableDiffusionPipeline", int, float, dict[str, Any]], "Mapping[str, Any] | None"]
Events = Generator["GenerationStep | StableDiffusionPipelineOutput", None, None]
SchedulerLike = str | Path | Mapping[str, Any] | Scheduler


class StableDiffusionPipeline:
    """A model folder and the sessions that run it. Safe to call from several threads.

    Make one with `from_pretrained`. Sessions are created at first use, or by `load`. A run that has begun
    ends with the sessions that it began with, whatever `to` and `close` do meanwhile.
    """

    def __init__(
        self, model: ModelFolder, config: SessionConfig, *, verify: bool = True, notify: Notify | None = None
    ) -> None:
        self.model, self._config, self._verify = model, config, verify
        self._notices = Notices(notify)
        self._limits = Limits.of(model)
        self._scheduler_config = model.scheduler_config
        self._scheduler: Scheduler | None = None
        self._components: Components | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        provider: str = AUTO,
        threads: int | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        allow_fallback: bool = False,
        verify: bool = True,
        notify: Notify | None = None,
        reporter: Any = None,
    ) -> StableDiffusionPipeline:
        """Open a model folder, an embedded model ("shapes") or a hub id; a torch checkpoint is exported once.

        Args:
            model: the folder, name or id.
            provider: "auto" (cuda where offered, else cpu) or a row of `sdrt.config.PROVIDERS`; "cuda:1" is
                the second device.
            threads: CPU threads, all cores by default.
            revision, token, cache_dir: passed to huggingface_hub.
            allow_fallback: let ONNX Runtime run on the CPU what the provider does not take.
            verify: check the hashes of files not seen before.
            notify: receives messages for the user; by default they are `SdrtWarning`s and, for what takes long,
                progress on stderr.
            reporter: receives the exporter's `ProgressEvent`s when a checkpoint is exported; by default they are
                messages too.

        Raises:
            ModelError, ProviderError, RequestError.
        """
        from sdrt.session import settle

        # A provider that is not there is refused before anything is downloaded or exported.
        config = SessionConfig(provider=provider, threads=threads, allow_fallback=allow_fallback)
        config = settle(config, Notices(notify))
        folder = resolve_model(
            model,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            notify=notify,
            target=PROVIDERS[config.name].target,
            reporter=reporter,
        )
        return cls(folder, config, verify=verify, notify=notify)

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        *,
        guidance_scale: float = 7.5,
        negative_prompt: str | Sequence[str] | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        seed: int | None = None,
        latents: Array | None = None,
        prompt_embeds: Array | None = None,
        negative_prompt_embeds: Array | None = None,
        output_type: str = "pil",
        clip_skip: int | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        scheduler: SchedulerLike | None = None,
        spacing: str | None = None,
        max_size: int | None = None,
    ) -> StableDiffusionPipelineOutput:
        """Make pictures; the arguments are diffusers', and `Request`'s. `seed` stands for its `generator`.

        `callback_on_step_end(pipeline, step_index, timestep, tensors)` may return tensors to go on with.
        `scheduler` is a name, a diffusers config as a dict, or a path to one; `spacing` a name.

        Raises:
            RequestError, ComponentError, OutOfMemoryError, ProviderError.
        """
        request = Request(
            prompt=prompt,
            height=height,
            width=width,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            negative_prompt=negative_prompt,
            num_images_per_prompt=num_images_per_prompt,
            eta=eta,
            seed=seed,
            latents=latents,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            output_type=output_type,
            clip_skip=clip_skip,
            max_size=max_size,
        )
        names = callback_tensors(callback_on_step_end_tensor_inputs)
        if callback_on_step_end is not None and not callable(callback_on_step_end):
            raise RequestError(f"callback_on_step_end is {brief(callback_on_step_end)}: expected a function")
        return self._run(
            self.stream(request, scheduler=scheduler, spacing=spacing), callback_on_step_end, names
        )

    def stream(
        self, request: Request, *, scheduler: SchedulerLike | None = None, spacing: str | None = None
    ) -> Events:
        """Yield each step of `request` as it is taken, then the result. Closing it stops the run.

        Raises `RequestError` at once, all else when the first step is asked for.
        """
        if not isinstance(request, Request):
            raise RequestError(f"request is {brief(request)}: expected an sdrt.Request")
        request = request.fit(self._limits)
        rule = self.scheduler_for(scheduler, spacing)
        return self._events(request, rule, rule.plan(request.num_inference_steps))

    def _events(self, request: Request, rule: Scheduler, plan: Plan) -> Events:
        try:
            yield from self._generate(request, rule, plan)
        except OutOfMemoryError:
            raise
        except MemoryError as error:
            # NumPy's own: latents and pictures are its arrays.
            raise pictures_failure(error) from error

    def _generate(self, request: Request, rule: Scheduler, plan: Plan) -> Events:
        parts = self._parts
        timings: dict[str, Any] = {}
        embeds = _encode(parts, request, timings)
        generators = [rng.Generator(seed) for seed in request.seeds]
        noise = self._start(request, generators)
        latents = yield from self._denoise(parts, request, rule, plan, embeds, noise, generators, timings)
        images = _decode(parts, request, latents, timings)
        yield StableDiffusionPipelineOutput(
            images=images, seeds=list(request.seeds), request=request, timings=timings
        )

    def scheduler_for(self, scheduler: SchedulerLike | None = None, spacing: str | None = None) -> Scheduler:
        """The scheduler that a call with these arguments uses. Raises `RequestError` for unknown names."""
        if scheduler is None and spacing is None:
            return self.scheduler
        start = self.scheduler if scheduler is None else scheduler
        return resolve_scheduler(start, self._scheduler_config, spacing=spacing)

    def to(self, provider: str) -> StableDiffusionPipeline:
        """Run on `provider` from the next call on. Raises `ProviderError`, and changes nothing, without it."""
        from sdrt.session import settle

        config = settle(replace(self._config, provider=provider), self._notices)
        with self._lock:
            if config != self._config:
                self._config, self._components = config, None
        return self

    def load(self) -> StableDiffusionPipeline:
        """Create every session that text to image needs, now."""
        self._parts.load()
        return self

    def close(self) -> None:
        """Free the sessions, once no run uses them; a later call makes them again."""
        with self._lock:
            self._components = None

    def __enter__(self) -> StableDiffusionPipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def provider(self) -> str:
        """The provider that sessions are made on, "auto" decided."""
        return self._config.name

    @property
    def scheduler(self) -> Scheduler:
        """What a call uses when it names no scheduler: the model's, unless one was assigned."""
        if self._scheduler is None:
            self._scheduler = resolve_scheduler(None, self._scheduler_config)
        return self._scheduler

    @scheduler.setter
    def scheduler(self, value: SchedulerLike) -> None:
        self._scheduler = resolve_scheduler(value, self._scheduler_config)

    @property
    def _parts(self) -> Components:
        from sdrt.components import Components

        with self._lock:
            if self._components is None:
                if self._verify:
                    self.model.verify(self._notices)
                self._components = Components(self.model, self._config, self._notices)
            return self._components

    def _run(
        self,
        events: Events,
        callback: Callback | None,
        names: Sequence[str],
    ) -> StableDiffusionPipelineOutput:
        for event in events:
            if isinstance(event, StableDiffusionPipelineOutput):
                return event
            if callback is not None:
                event.update(
                    callback_answer(callback(self, event.index, event.timestep, event.tensors(names)), names)
                )
        raise AssertionError("a stream ends with its result")

    def _start(self, request: Request, generators: list[rng.Generator]) -> Array:
        """Unit noise [N, C, h, w]: the request's, or each picture's own."""
        if request.latents is not None:
            return request.latents
        assert request.height is not None  # filled in by `fit`, as is the width
        assert request.width is not None
        factor = self._limits.vae_scale_factor
        shape = (self._limits.latent_channels, request.height // factor, request.width // factor)
        return np.stack([generator.randn(shape) for generator in generators])

    def _denoise(
        self,
        parts: Components,
        request: Request,
        rule: Scheduler,
        plan: Plan,
        embeds: Array,
        noise: Array,
        generators: list[rng.Generator],
        timings: dict[str, Any],
    ) -> Generator[GenerationStep, None, Array]:
        """Yield the steps; return the clean latents."""
        unet, shape = parts.unet, noise.shape[1:]
        shapes = {"sample": (len(embeds), *shape), "encoder_hidden_states": embeds.shape}
        shapes["timestep"] = tuple(1 for _ in unet.inputs["timestep"].shape)
        with unet.bound({name: shapes[name] for name in INPUTS}, (OUTPUT,)) as run:
            denoiser = Denoiser(
                unet,
                run,
                plan,
                schedule=rule.noise_schedule,
                guidance_scale=request.guidance_scale if request.guided else None,
                notices=self._notices,
            )
            denoiser.condition(embeds)
            steps = rule.sample(
                denoiser,
                noise * np.float32(plan.init_scale),
                plan,
                noise=lambda: np.stack([generator.randn(shape) for generator in generators]),
                eta=request.eta,
            )
            timings["unet"] = denoiser.seconds
            for step in steps:
                event = GenerationStep(step, plan, denoiser, embeds, request.num_pictures)
                try:
                    yield event
                finally:
                    event.end()
        return event.latents


def _encode(parts: Components, request: Request, timings: dict[str, Any]) -> Array:
    """Text embeddings [N or 2N, length, width]: with guidance, the unconditional half first."""
    start = time.perf_counter()
    embeds = request.prompt_embeds
    if embeds is None:
        embeds = parts.text_encoder(request.prompts, request.clip_skip)
    halves = [embeds]
    if request.guided:
        negative = request.negative_prompt_embeds
        # diffusers skips no layers for the negative prompt.
        if negative is None:
            negative = parts.text_encoder(request.negative_prompts, name="negative prompt")
        halves.insert(0, negative)
    if len({half.shape for half in halves}) > 1:
        shapes = " and ".join(str(half.shape) for half in halves)
        raise RequestError(f"embeddings of the negative and the positive prompt differ in shape: {shapes}")
    timings["text_encoder"] = time.perf_counter() - start
    return np.concatenate([np.repeat(half, request.num_images_per_prompt, axis=0) for half in halves])


def _decode(parts: Components, request: Request, latents: Array, timings: dict[str, Any]) -> Any:
    """Pictures in the requested form, one at a time."""
    if not np.isfinite(latents).all():
        raise ComponentError(
            "unet: the latents are not finite: the graph overflows or is damaged; export it again"
        )
    if request.output_type == "latent":
        return latents
    start = time.perf_counter()
    images = [parts.vae_decoder(one) for one in latents]
    timings["vae_decoder"] = time.perf_counter() - start
    pictures: list[Image.Image] | Array
    pictures = np.stack(images) if request.output_type == "np" else [to_pil(image) for image in images]
    return pictures
