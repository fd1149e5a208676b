"""A request's way through the model: encode → start latents → denoise → decode."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common import rng
from sdrt.common.notices import Notices
from sdrt.errors import ComponentError, OutOfMemoryError
from sdrt.families.capabilities import Capabilities
from sdrt.images.arrays import to_pil
from sdrt.onnx.error_messages import pictures_failure
from sdrt.onnx.providers import PROVIDERS
from sdrt.request.request import Request
from sdrt.run.component_store import ComponentStore
from sdrt.run.conditioning import Conditioning
from sdrt.run.denoiser import LABELS, OUTPUT, Denoiser
from sdrt.run.multi_pass import make_twice, outpaint
from sdrt.run.origin import Origin
from sdrt.run.result import Events, GenerationStep, StableDiffusionPipelineOutput
from sdrt.run.start_latents import Beginning, Start
from sdrt.schedulers import Scheduler, resolve_scheduler
from sdrt.tasks.inpainting import Canvas

if TYPE_CHECKING:
    from PIL import Image

    from sdrt.run.components import Components

__all__ = ["Generation"]

Array = NDArray[np.float32]


class Generation:
    """Makes the pictures of requests that `fit` has filled in, of one model."""

    def __init__(self, store: ComponentStore, capabilities: Capabilities, notices: Notices) -> None:
        self._store, self._capabilities, self._notices = store, capabilities, notices

    def events(self, request: Request, scheduler: Scheduler, origin: Origin | None = None) -> Events:
        """Yield each step, then the result, which says its `origin`."""

        def one_pass(part: Request) -> Events:
            return self._with_what_fits(part, scheduler, origin)

        try:
            if request.outpaint is not None:
                yield from outpaint(request, one_pass, self._capabilities)
            elif request.hires_scale is not None:
                yield from make_twice(request, one_pass, self._capabilities)
            else:
                yield from one_pass(request)
        except OutOfMemoryError:
            # What was taken until then would be in the way of a smaller request.
            self._store.close()
            raise
        except MemoryError as error:
            # NumPy's own: latents and pictures are its arrays.
            raise pictures_failure(error) from error

    def _with_what_fits(self, request: Request, scheduler: Scheduler, origin: Origin | None) -> Events:
        """One pass, begun again with less where memory runs out in its first step."""
        timings: dict[str, Any] = {}
        try:
            yield from self._one_pass(request, scheduler, origin, timings)
            return
        except MemoryError as error:
            # After the first evaluation others would be told of the same steps again.
            if timings.get("unet") or not self._store.take_less(request, _typed(error)):
                raise
        # Not above: the error's frames hold what has to be let go of first.
        yield from self._one_pass(request, scheduler, origin, {})

    def _one_pass(
        self, request: Request, scheduler: Scheduler, origin: Origin | None, timings: dict[str, Any]
    ) -> Events:
        components = self._store.for_request(request)
        self._tell_of_warming_up(request)
        denoising = _Denoising(
            components,
            request,
            scheduler,
            capabilities=self._capabilities,
            notices=self._notices,
            timings=timings,
        )
        start = denoising.start(self._low_res_noise)
        latents = yield from denoising.steps(start)
        images = None
        try:
            images = _decode(components, request, latents, start.canvases, timings)
        except MemoryError as error:
            if not self._store.take_less(request, _typed(error)):
                raise
        if images is None:
            components = self._store.for_request(request)
            images = _decode(components, request, latents, start.canvases, timings)
        yield StableDiffusionPipelineOutput(
            images=images, seeds=list(request.seeds), request=request, timings=timings, origin=origin
        )

    def _tell_of_warming_up(self, request: Request) -> None:
        """Once for a size, where the provider does more in its first run than in others."""
        name = self._store.config.name
        if (what := PROVIDERS[name].warms_up) and self._store.is_first_at(request):
            self._notices.inform(
                f"warming up for {request.width}x{request.height}, {request.num_pictures} at once, on {name}: {what}"
            )

    def _low_res_noise(self, level: int) -> tuple[float, float]:
        """√ᾱ and √(1 − ᾱ) of the noise that an upscaling model's small picture gets."""
        schedule = resolve_scheduler(None, self._store.model.low_res_scheduler_config).noise_schedule
        alpha = schedule.alphas_cumprod[level]
        return float(np.sqrt(alpha)), float(np.sqrt(1 - alpha))


class _Denoising:
    """One pass of a request, from its texts to clean latents. `timings` gets what each part took, in seconds."""

    def __init__(
        self,
        components: Components,
        request: Request,
        scheduler: Scheduler,
        *,
        capabilities: Capabilities,
        notices: Notices,
        timings: dict[str, Any],
    ) -> None:
        self._components, self._request, self._scheduler = components, request, scheduler
        self._capabilities, self._notices, self._timings = capabilities, notices, timings
        self._plan = scheduler.plan(request.num_inference_steps, skip=request.num_skipped_steps)
        with _timed(timings, "text_encoder"):
            self._conditioning = Conditioning.of(request, lambda: components.text_encoder)
        self._generators = [rng.Generator(seed) for seed in request.seeds]

    def start(self, low_res_noise: Callable[[int], tuple[float, float]]) -> Start:
        """Latents to begin with: noise, and the picture that was given."""
        beginning = Beginning(
            request=self._request,
            plan=self._plan,
            generators=self._generators,
            capabilities=self._capabilities,
            encoder=lambda: self._components.vae_encoder,
            low_res_noise=low_res_noise,
        )
        if self._request.image is None:
            return beginning.start()
        with _timed(self._timings, "vae_encoder"):
            return beginning.start()

    def steps(self, start: Start) -> Generator[GenerationStep, None, Array]:
        """Yield the steps; return the clean latents [N, C, h, w]."""
        unet, plan, conditioning = self._components.unet, self._plan, self._conditioning
        embeds = conditioning.at(0)
        with unet.bound(self._shapes(start, embeds), (OUTPUT,)) as run:
            denoiser = Denoiser(
                unet,
                run,
                plan,
                batch=len(embeds),
                schedule=self._scheduler.noise_schedule,
                owners=conditioning.owners,
                weights=conditioning.weights,
                scale=conditioning.scale,
                rescale=self._request.guidance_rescale,
                notices=self._notices,
                beside=None
                if start.beside is None
                else conditioning.over_batch(start.beside, blank=start.blank),
                labels=start.labels,
                windows=self._request.windows(self._capabilities),
            )
            denoiser.condition(embeds)
            self._timings["unet"] = denoiser.seconds
            for step in self._scheduler.sample(
                denoiser, start.x, plan, noise=lambda: self._noise(start), eta=self._request.eta
            ):
                if start.known is not None:
                    scale = plan.latents_scale(step.sigma)
                    start.known.hold(step.x, step.sigma, last=step.last, latents_scale=scale)
                event = GenerationStep(step, plan, denoiser, embeds, self._request.num_pictures)
                try:
                    yield event
                finally:
                    event.end()
                here, following = plan.step_of(step.index), plan.step_of(step.index + 1)
                if not step.last and conditioning.changes(here, following):
                    embeds = conditioning.at(following)
                    denoiser.condition(embeds)
        return event.latents

    def _shapes(self, start: Start, embeds: Array) -> dict[str, tuple[int, ...]]:
        """Of the U-Net's inputs."""
        inputs, windows = self._components.unet.inputs, self._request.windows(self._capabilities)
        _, channels, *size = start.x.shape
        if start.beside is not None:
            channels += start.beside.shape[1]
        rows = 1 if self._components.low_vram else len(embeds)
        shapes = {
            "sample": (rows, channels, *(size if windows is None else windows.size)),
            "timestep": tuple(1 for _ in inputs["timestep"].shape),
            "encoder_hidden_states": (rows, *embeds.shape[1:]),
        }
        if start.labels is not None:
            shapes[LABELS] = (rows,)
        return {name: shapes[name] for name in inputs}

    def _noise(self, start: Start) -> Array:
        """Of a step that adds some: of each picture from its own generator."""
        return np.stack([generator.randn(start.x.shape[1:]) for generator in self._generators])


def _decode(
    components: Components,
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
    with _timed(timings, "vae_decoder"):
        images = [components.vae_decoder(one) for one in latents]
        if request.composite and canvases:
            images = [canvas.composite(made) for canvas, made in zip(canvases, images, strict=True)]
    pictures: list[Image.Image] | Array
    pictures = np.stack(images) if request.output_type == "np" else [to_pil(image) for image in images]
    return pictures


def _typed(error: MemoryError) -> OutOfMemoryError:
    """A component's failure, or NumPy's own: latents and pictures are its arrays."""
    return error if isinstance(error, OutOfMemoryError) else pictures_failure(error)


@contextmanager
def _timed(timings: dict[str, Any], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    timings[name] = time.perf_counter() - began
