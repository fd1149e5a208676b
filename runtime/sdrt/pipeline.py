"""Text to picture: encode → start latents → denoise → decode."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt import rng
from sdrt.conditioning import Conditioning
from sdrt.config import AUTO, PROVIDERS, SessionConfig
from sdrt.denoiser import LABELS, OUTPUT, Denoiser
from sdrt.errors import ComponentError, OutOfMemoryError, RequestError
from sdrt.failures import pictures_failure
from sdrt.image import to_pil
from sdrt.inpainting import Canvas
from sdrt.limits import Limits, whole
from sdrt.model import TAESD_DECODER, ModelFolder
from sdrt.notices import Notices, Notify
from sdrt.passes import make_twice, outpaint
from sdrt.preview import LinearPreview, Preview
from sdrt.request import Request
from sdrt.result import (
    Events,
    GenerationStep,
    StableDiffusionPipelineOutput,
    callback_answer,
    callback_tensors,
)
from sdrt.schedulers import Plan, Scheduler, resolve_scheduler
from sdrt.source import resolve_model
from sdrt.start import Beginning, Start
from sdrt.textual_inversion import Inversions, read_inversions
from sdrt.wording import brief

if TYPE_CHECKING:
    from PIL import Image

    from sdrt.components import Components
    from sdrt.session import Component

__all__ = ["GenerationStep", "StableDiffusionPipeline", "StableDiffusionPipelineOutput"]

Array = NDArray[np.float32]
Callback = Callable[["StableDiffusionPipeline", int, float, dict[str, Any]], "Mapping[str, Any] | None"]
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
        self._outgrown = math.inf
        """Pixels of all pictures of a request for which memory ran out."""
        self._preview: Preview | None = None
        self._inversions: Inversions | None = None
        self._warm: set[tuple[Any, ...]] = set()
        self._rescues: Counter[str] = Counter()
        self._lock = threading.RLock()

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        provider: str = AUTO,
        provider_options: Mapping[str, Any] | None = None,
        threads: int | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        allow_fallback: bool = False,
        vae_tiling: bool | None = None,
        low_vram: bool | None = None,
        verify: bool = True,
        notify: Notify | None = None,
        reporter: Any = None,
    ) -> StableDiffusionPipeline:
        """Open a model folder, an embedded model ("shapes") or a hub id; a torch checkpoint is exported once.

        Args:
            model: the folder, name or id.
            provider: "auto" (cuda where offered, else cpu) or a row of `sdrt.config.PROVIDERS`; "cuda:1" is
                the second device.
            provider_options: of the provider that is named, such as {"gpu_mem_limit": "6GB"} or
                {"precision": "bf16"}; docs/providers.md lists them.
            threads: CPU threads, all cores by default.
            revision, token, cache_dir: passed to huggingface_hub.
            allow_fallback: let ONNX Runtime run on the CPU what the provider does not take.
            vae_tiling: encode and decode pictures in tiles, in the memory of one and with the same result; by
                default those of more than 1024x1024 pixels.
            low_vram: take as little memory as there is a way to, and more time: components are loaded when they are
                needed and let go of after, guidance takes two calls of the U-Net, the VAE works in tiles. By default
                where memory has run out, and for pictures of that size and above from then on; False raises.
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
        config = SessionConfig(
            provider=provider,
            threads=threads,
            allow_fallback=allow_fallback,
            vae_tiling=vae_tiling,
            low_vram=low_vram,
            provider_options={} if provider_options is None else provider_options,
        )
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
        guidance_scale: float | None = None,
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
        prompt_syntax: str = "a1111",
        image: Any = None,
        strength: float | None = None,
        mask_image: Any = None,
        mask_blur: float = 4.0,
        padding_mask_crop: int | None = None,
        composite: bool = True,
        outpaint: Any = None,
        image_guidance_scale: float | None = None,
        noise_level: int | None = None,
        guidance_rescale: float = 0.0,
        timesteps: Sequence[int] | None = None,
        sigmas: Sequence[float] | None = None,
        hires_scale: float | None = None,
        hires_strength: float = 0.7,
        hires_steps: int | None = None,
        hires_upscaler: str = "latent",
        tile_size: int | None = None,
        tile_overlap: int | None = None,
        max_size: int | None = None,
    ) -> StableDiffusionPipelineOutput:
        """Make pictures; the arguments are diffusers', and `Request`'s. `seed` stands for its `generator`.

        `callback_on_step_end(pipeline, step_index, timestep, tensors)` may return tensors to go on with; of `denoised`,
        the estimate of the clean latents, it may make a `preview`.
        `scheduler` is a name, a diffusers config as a dict, or a path to one; `spacing` a name. `prompt_syntax` is
        "a1111", "compel", or "plain" for a prompt whose brackets are brackets.

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
            prompt_syntax=prompt_syntax,
            image=image,
            strength=strength,
            mask_image=mask_image,
            mask_blur=mask_blur,
            padding_mask_crop=padding_mask_crop,
            composite=composite,
            outpaint=outpaint,
            image_guidance_scale=image_guidance_scale,
            noise_level=noise_level,
            guidance_rescale=guidance_rescale,
            timesteps=timesteps,
            sigmas=sigmas,
            hires_scale=hires_scale,
            hires_strength=hires_strength,
            hires_steps=hires_steps,
            hires_upscaler=hires_upscaler,
            tile_size=tile_size,
            tile_overlap=tile_overlap,
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
        request, rule = request.fit(self._limits), self._rule(request, scheduler, spacing)
        _count(request, rule)
        return self._events(request, rule)

    def num_evaluations(
        self, request: Request, *, scheduler: SchedulerLike | None = None, spacing: str | None = None
    ) -> int:
        """How many steps `stream` yields for a request. Raises `RequestError` as it does."""
        return _count(request.fit(self._limits), self._rule(request, scheduler, spacing))

    def _rule(self, request: Request, scheduler: SchedulerLike | None, spacing: str | None) -> Scheduler:
        rule = self.scheduler_for(scheduler, spacing)
        return rule.with_levels(timesteps=request.timesteps, sigmas=request.sigmas)

    def _events(self, request: Request, rule: Scheduler) -> Events:
        def generate(one: Request) -> Events:
            return self._generate(one, rule)

        try:
            if request.outpaint is not None:
                yield from outpaint(request, generate, self._limits)
            elif request.hires_scale is not None:
                yield from make_twice(request, generate, self._limits)
            else:
                yield from generate(request)
        except OutOfMemoryError:
            # What was taken until then would be in the way of a smaller request.
            self.close()
            raise
        except MemoryError as error:
            # NumPy's own: latents and pictures are its arrays.
            raise pictures_failure(error) from error

    def _generate(self, request: Request, rule: Scheduler) -> Events:
        timings: dict[str, Any] = {}
        try:
            yield from self._attempt(request, rule, timings)
            return
        except OutOfMemoryError as error:
            # After the first evaluation others would be told of the same steps again.
            if timings.get("unet") or not self._take_less(request, error):
                raise
        # Not above: the error's frames hold what has to be let go of first.
        yield from self._attempt(request, rule, {})

    def _attempt(self, request: Request, rule: Scheduler, timings: dict[str, Any]) -> Events:
        parts = self._parts_for(request)
        self._tell_of_warming_up(request)
        plan = rule.plan(request.num_inference_steps, skip=request.num_skipped_steps)
        began = time.perf_counter()
        conditioning = Conditioning.of(request, lambda: parts.text_encoder)
        timings["text_encoder"] = time.perf_counter() - began
        generators = [rng.Generator(seed) for seed in request.seeds]
        began = time.perf_counter()
        start = Beginning(
            request=request,
            plan=plan,
            generators=generators,
            limits=self._limits,
            encoder=lambda: parts.vae_encoder,
            low_res_noise=self._low_res_noise,
        ).start()
        if request.image is not None:
            timings["vae_encoder"] = time.perf_counter() - began
        latents = yield from self._denoise(
            parts, request, rule, plan, conditioning, start, generators, timings
        )
        images = None
        try:
            images = _decode(parts, request, latents, start.canvases, timings)
        except OutOfMemoryError as error:
            if not self._take_less(request, error):
                raise
        if images is None:
            parts = self._parts_for(request)
            images = _decode(parts, request, latents, start.canvases, timings)
        yield StableDiffusionPipelineOutput(
            images=images, seeds=list(request.seeds), request=request, timings=timings
        )

    def load_textual_inversion(self, path: str | Path, token: str | None = None) -> list[str]:
        """Read words of a `.safetensors` file, diffusers' or A1111's; returns what prompts may call them by.

        `token` names the word of a file that has one; an A1111 file's is its own name.

        Raises:
            ModelNotFoundError, UnsupportedModelError, RequestError.
        """
        config = self.model.component_config("text_encoder")
        words = read_inversions(
            path,
            token=token,
            width=whole(config, "hidden_size", "text_encoder"),
            room=whole(config, "max_position_embeddings", "text_encoder") - 2,
        )
        with self._lock:
            parts = self._parts
            known = self._inversions or Inversions(vocabulary=whole(config, "vocab_size", "text_encoder"))
            inversions = known.with_words(words)
            parts.use(inversions)
            self._inversions = inversions
        return [word.token for word in words]

    @property
    def preview(self) -> Preview:
        """`preview(latents)`: pictures of latents [N, C, h, w], such as a step's `denoised`, in no time.

        Coarse ones, unless the model was exported with a TAESD.

        Raises:
            UnsupportedModelError: the model was exported without what it takes.
        """
        if self.model.has(TAESD_DECODER):
            return self._parts.taesd
        if self._preview is None:
            limits = self._limits
            self._preview = LinearPreview.of(
                self.model, channels=limits.latent_channels, factor=limits.vae_scale_factor
            )
        return self._preview

    def scheduler_for(self, scheduler: SchedulerLike | None = None, spacing: str | None = None) -> Scheduler:
        """The scheduler that a call with these arguments uses. Raises `RequestError` for unknown names."""
        if scheduler is None and spacing is None:
            return self.scheduler
        start = self.scheduler if scheduler is None else scheduler
        return resolve_scheduler(start, self._scheduler_config, spacing=spacing)

    def to(self, provider: str, provider_options: Mapping[str, Any] | None = None) -> StableDiffusionPipeline:
        """Run on `provider` from the next call on, with these options of it, or its usual ones.

        Raises `ProviderError` without it, `RequestError` for options that it does not take, and changes nothing.
        """
        from sdrt.session import settle

        options = {} if provider_options is None else provider_options
        config = settle(replace(self._config, provider=provider, provider_options=options), self._notices)
        with self._lock:
            if config != self._config:
                self._let_go()
                self._config, self._outgrown = config, math.inf
                self._warm.clear()
        return self

    def load(self) -> StableDiffusionPipeline:
        """Create every session that text to image needs, now."""
        self._parts.load()
        return self

    def warm_up(
        self,
        width: int | None = None,
        height: int | None = None,
        num_images_per_prompt: int = 1,
        guidance_scale: float | None = None,
    ) -> StableDiffusionPipeline:
        """Do now what the first call at a size does besides its work, so that no user waits for it.

        Sessions are created, and a picture is made in two steps and thrown away: in the first runs at a size providers
        choose kernels, build engines and record what they launch.

        Raises what a call raises.
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

    def _tell_of_warming_up(self, request: Request) -> None:
        """Once for a size, where the provider does more in its first run than in others."""
        what = PROVIDERS[self.provider].warms_up
        size = request.width, request.height, request.num_pictures
        with self._lock:
            if not what or size in self._warm:
                return
            self._warm.add(size)
        self._notices.inform(
            f"warming up for {request.width}x{request.height}, {request.num_pictures} at once, on {self.provider}: "
            f"{what}"
        )

    def close(self) -> None:
        """Free the sessions, once no run uses them; a later call makes them again."""
        with self._lock:
            self._let_go()
            self._warm.clear()

    def __enter__(self) -> StableDiffusionPipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def graphs(self) -> tuple[Component, ...]:
        """The components whose sessions are open."""
        with self._lock:
            return () if self._components is None else self._components.graphs

    @property
    def rescues(self) -> dict[str, int]:
        """How many runs of which component overflowed float16 and were made again in float32."""
        return dict(self._rescues)

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
        with self._lock:
            return self._components or self._open(low_vram=bool(self._config.low_vram))

    def _parts_for(self, request: Request) -> Components:
        """Those that take less for a request for which memory ran out before."""
        with self._lock:
            low = self._config.low_vram
            if low is None:
                low = _pixels(request) >= self._outgrown
            found = self._components
            return found if found is not None and found.low_vram == low else self._open(low_vram=low)

    def _open(self, *, low_vram: bool) -> Components:
        from sdrt.components import Components

        if self._verify:
            self.model.verify(self._notices)
        self._let_go()  # before others are made: there may not be room for both
        config = replace(self._config, low_vram=low_vram)
        self._components = Components(self.model, config, self._notices, self._inversions, self._rescues)
        return self._components

    def _let_go(self) -> None:
        """Of every session; one that a run still uses ends with that."""
        if self._components is not None:
            self._components.close()
        self._components = None

    def _take_less(self, request: Request, error: OutOfMemoryError) -> bool:
        """Whether this request, and all from its size on, is tried with `low_vram`: once, and where that is allowed."""
        with self._lock:
            if self._config.low_vram is not None or _pixels(request) >= self._outgrown:
                return False
            self._outgrown = _pixels(request)
            self._let_go()
        self._notices.warn(
            f"{str(error).partition(':')[0]}. Trying again with low_vram, which is slower, for this and all that is as "
            "large"
        )
        return True

    def _low_res_noise(self, level: int) -> tuple[float, float]:
        """√ᾱ and √(1 − ᾱ) of the noise that an upscaling model's small picture gets."""
        schedule = resolve_scheduler(None, self.model.low_res_scheduler_config).noise_schedule
        alpha = schedule.alphas_cumprod[level]
        return float(np.sqrt(alpha)), float(np.sqrt(1 - alpha))

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

    def _denoise(
        self,
        parts: Components,
        request: Request,
        rule: Scheduler,
        plan: Plan,
        conditioning: Conditioning,
        start: Start,
        generators: list[rng.Generator],
        timings: dict[str, Any],
    ) -> Generator[GenerationStep, None, Array]:
        """Yield the steps; return the clean latents."""
        unet, shape = parts.unet, start.x.shape[1:]
        embeds = conditioning.at(0)
        beside = start.beside
        channels = shape[0] + (0 if beside is None else beside.shape[1])
        windows = request.windows(self._limits)
        size = shape[1:] if windows is None else windows.size
        rows = 1 if parts.low_vram else len(embeds)
        shapes = {"sample": (rows, channels, *size), "encoder_hidden_states": (rows, *embeds.shape[1:])}
        shapes["timestep"] = tuple(1 for _ in unet.inputs["timestep"].shape)
        if start.labels is not None:
            shapes[LABELS] = (rows,)
        with unet.bound({name: shapes[name] for name in unet.inputs}, (OUTPUT,)) as run:
            denoiser = Denoiser(
                unet,
                run,
                plan,
                batch=len(embeds),
                schedule=rule.noise_schedule,
                owners=conditioning.owners,
                weights=conditioning.weights,
                scale=conditioning.scale,
                rescale=request.guidance_rescale,
                notices=self._notices,
                beside=None if beside is None else conditioning.over_batch(beside, blank=start.blank),
                labels=start.labels,
                windows=windows,
            )
            denoiser.condition(embeds)
            steps = rule.sample(
                denoiser,
                start.x,
                plan,
                noise=lambda: np.stack([generator.randn(shape) for generator in generators]),
                eta=request.eta,
            )
            timings["unet"] = denoiser.seconds
            for step in steps:
                if start.known is not None:
                    scale = plan.latents_scale(step.sigma)
                    start.known.hold(step.x, step.sigma, last=step.last, latents_scale=scale)
                event = GenerationStep(step, plan, denoiser, embeds, request.num_pictures)
                try:
                    yield event
                finally:
                    event.end()
                here, following = plan.step_of(step.index), plan.step_of(step.index + 1)
                if not step.last and conditioning.changes(here, following):
                    embeds = conditioning.at(following)
                    denoiser.condition(embeds)
        return event.latents


def _pixels(request: Request) -> float:
    """Of all pictures of a request that `fit` has filled in."""
    assert request.width is not None
    assert request.height is not None
    return request.num_pictures * request.width * request.height


def _count(request: Request, rule: Scheduler) -> int:
    """Evaluations of the U-Net for a request that `fit` has filled in; raises what its plans raise."""
    steps = [(request.num_inference_steps, request.num_skipped_steps)]
    if request.outpaint is not None:
        steps *= len(request.passes())
    if request.hires_scale is not None:
        again = request.hires_steps or request.num_inference_steps
        steps.append((again, again - request.num_hires_steps))
    return sum(rule.plan(count, skip=skip).num_evaluations for count, skip in steps)


def _decode(
    parts: Components,
    request: Request,
    latents: Array,
    canvases: Sequence[Canvas],
    timings: dict[str, Any],
) -> Any:
    """Pictures in the requested form, one at a time, put into those that were given with a mask."""
    if not np.isfinite(latents).all():
        raise ComponentError(
            "unet: the latents are not finite: the graph overflows or is damaged; export it again"
        )
    if request.output_type == "latent":
        return latents
    start = time.perf_counter()
    images = [parts.vae_decoder(one) for one in latents]
    if request.composite and canvases:
        images = [canvas.composite(made) for canvas, made in zip(canvases, images, strict=True)]
    timings["vae_decoder"] = time.perf_counter() - start
    pictures: list[Image.Image] | Array
    pictures = np.stack(images) if request.output_type == "np" else [to_pil(image) for image in images]
    return pictures
