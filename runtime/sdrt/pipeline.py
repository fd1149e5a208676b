"""The pipeline: what a program calls, with the arguments that diffusers' have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief
from sdrt.common.notices import Notices, Notify
from sdrt.errors import RequestError, UnsupportedModelError
from sdrt.families.capabilities import whole
from sdrt.model_folder.folder import TAESD_DECODER, ModelFolder
from sdrt.model_folder.resolve import resolve_model
from sdrt.onnx.providers import AUTO, PROVIDERS, SessionConfig
from sdrt.request.fitted import fit
from sdrt.request.request import Request
from sdrt.run.component_store import ComponentStore, MakeComponents
from sdrt.run.generation import Generation
from sdrt.run.multi_pass import plan_passes
from sdrt.run.origin import Origin
from sdrt.run.result import (
    Events,
    GenerationStep,
    StableDiffusionPipelineOutput,
    callback_answer,
    callback_tensors,
)
from sdrt.schedulers import Scheduler, resolve_scheduler
from sdrt.text.textual_inversion import read_inversions
from sdrt.vae.preview import LinearPreview, Preview

if TYPE_CHECKING:
    from sdrt.onnx.session import Component

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
        self,
        model: ModelFolder,
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
        self._store = ComponentStore(model, config, self._notices, verify=verify, make=make_components)
        self._generation = Generation(self._store, self._notices)

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
            provider: "auto" (cuda where offered, else cpu) or a row of `sdrt.onnx.providers.PROVIDERS`; "cuda:1" is
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
        from sdrt.onnx.engine import settle

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
        asked = self.scheduler_for(scheduler, spacing)
        fitted, rule = fit(request, self._capabilities), self._rule(request, asked)
        # Here, so that what no steps can be planned of is an error before the first step is asked for.
        return self._generation.events(fitted, rule, plan_passes(fitted, rule), self._origin(asked))

    def num_evaluations(
        self, request: Request, *, scheduler: SchedulerLike | None = None, spacing: str | None = None
    ) -> int:
        """How many steps `stream` yields for a request. Raises `RequestError` as it does."""
        asked = self.scheduler_for(scheduler, spacing)
        fitted, rule = fit(request, self._capabilities), self._rule(request, asked)
        return sum(plan.num_evaluations for plan in plan_passes(fitted, rule))

    def _origin(self, scheduler: Scheduler) -> Origin:
        return Origin(
            model=self.model.name,
            takes_strength="strength" not in self._capabilities.task.refuses,
            scheduler=scheduler,
            scheduler_config=self._scheduler_config,
            vae_tiling=self._store.config.vae_tiling,
            embeddings=self._store.embeddings,
        )

    @staticmethod
    def _rule(request: Request, scheduler: Scheduler) -> Scheduler:
        """`scheduler` with the levels of a request that names its own."""
        return scheduler.with_levels(timesteps=request.timesteps, sigmas=request.sigmas)

    def load_textual_inversion(self, path: str | Path, token: str | None = None) -> list[str]:
        """Read words of a `.safetensors` file, diffusers' or A1111's; returns what prompts may call them by.

        `token` names the word of a file that has one; an A1111 file's is its own name.

        Raises:
            ModelNotFoundError, UnsupportedModelError, RequestError.
        """
        name, *others = [spec.component for spec in self.model.family.text_encoders]
        if others:
            raise UnsupportedModelError(
                f"{path}: textual inversions are for models with one text encoder, and this one has "
                f"{len(others) + 1}: leave it out"
            )
        config = self.model.component_config(name)
        words = read_inversions(
            path,
            token=token,
            width=whole(config, "hidden_size", name),
            room=whole(config, "max_position_embeddings", name) - 2,
        )
        self._store.add_words(words)
        self._store.embeddings += (Path(path).name,)
        return [word.token for word in words]

    @property
    def preview(self) -> Preview:
        """`preview(latents)`: pictures of latents [N, C, h, w], such as a step's `denoised`, in no time.

        Coarse ones, unless the model was exported with a TAESD.

        Raises:
            UnsupportedModelError: the model was exported without what it takes.
        """
        if self.model.has(TAESD_DECODER):
            return self._store.get().taesd
        if self._preview is None:
            capabilities = self._capabilities
            self._preview = LinearPreview.of(
                self.model, channels=capabilities.latent_channels, factor=capabilities.vae_scale_factor
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
        from sdrt.onnx.engine import settle

        options = {} if provider_options is None else provider_options
        config = replace(self._store.config, provider=provider, provider_options=options)
        self._store.configure(settle(config, self._notices))
        return self

    def load(self) -> StableDiffusionPipeline:
        """Create every session that text to image needs, now.

        Where they do not fit into memory together, each is made when it is needed from then on, unless `low_vram` is
        False.

        Raises:
            OutOfMemoryError, ModelError, ProviderError.
        """
        self._store.load()
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

    def close(self) -> None:
        """Free the sessions, once no run uses them; a later call makes them again."""
        self._store.close()

    def __enter__(self) -> StableDiffusionPipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def graphs(self) -> tuple[Component, ...]:
        """The components whose sessions are open."""
        components = self._store.opened
        return () if components is None else components.graphs

    @property
    def rescues(self) -> dict[str, int]:
        """How many runs of which component were made in float32, as they or one before them overflowed float16."""
        return dict(self._store.float32_retries)

    @property
    def provider(self) -> str:
        """The provider that sessions are made on, "auto" decided."""
        return self._store.config.name

    @property
    def scheduler(self) -> Scheduler:
        """What a call uses when it names no scheduler: the model's, unless one was assigned."""
        if self._scheduler is None:
            own = resolve_scheduler(None, self._scheduler_config)
            self.model.family.check_noise_schedule(own.noise_schedule, own.sampler.class_name)
            self._scheduler = own
        return self._scheduler

    @scheduler.setter
    def scheduler(self, value: SchedulerLike) -> None:
        self._scheduler = resolve_scheduler(value, self._scheduler_config)

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
