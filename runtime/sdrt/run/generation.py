"""Makes the images of a request: runs its passes, and repeats a pass with `low_vram` if memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sdrt.common import rng
from sdrt.common.limits import is_of_memory
from sdrt.common.messages import brief
from sdrt.common.notices import Notices
from sdrt.errors import OutOfMemoryError
from sdrt.model_folder.model import Model
from sdrt.onnx.providers import PROVIDERS
from sdrt.request.fitted import FittedRequest
from sdrt.run.job import Pass, Timings, memory_error
from sdrt.run.memory import ComponentCache
from sdrt.run.multi_pass import PlannedPass, make_twice, outpaint
from sdrt.run.one_pass import run_pass
from sdrt.run.origin import Origin
from sdrt.run.result import Events
from sdrt.text.unread import NO_FOLDER, OTHER_TEXT, unread

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
        model: Model | None = None,
    ) -> Events:
        """Yield each step, then the result. Most requests have one pass.

        Args:
            request: the request, completed by `fit`.
            plans: the passes, from `plan_passes`.
            origin: the model and the settings, which the result keeps for its metadata.
            model: the one that the request was planned for, which may have other IP-Adapters than the present one.
        """

        refiner = self._refiner_of(plans)

        def one_pass(request: FittedRequest, planned: PlannedPass) -> Events:
            return self._one_pass(request, planned, origin, refiner, model)

        self._tell_of_prompts(request)
        self._tell_of_words(request, refiner)
        self._tell_of_loras(request)
        self._tell_of_controls(request, refiner)
        self._tell_of_checker(request, refiner)
        try:
            if request.outpaint is not None:
                yield from outpaint(request, plans, one_pass, self._capabilities)
            elif request.hires_scale is not None:
                yield from make_twice(request, plans, one_pass, self._capabilities)
            else:
                yield from one_pass(request, plans[0])
        except Exception as error:
            # Errors about memory have many types: MemoryError, NumPy's, ONNX Runtime's, ImportError from late imports.
            # `is_of_memory` knows them. Every other error is raised unchanged.
            if not is_of_memory(error):
                raise
            advised = self._cache.with_advice(memory_error(error), request)
            if isinstance(error, OutOfMemoryError):
                # Free the memory for the next request, which may be smaller.
                self._cache.close()
                if refiner is not None:
                    refiner.close()
            raise advised from error

    def _refiner_of(self, plans: Sequence[PlannedPass]) -> ComponentCache | None:
        """The refiner's components, if a pass has one and it is another model."""
        caches = [one.takeover.refiner.cache for one in plans if one.takeover is not None]
        return next((cache for cache in caches if cache is not self._cache), None)

    def _one_pass(
        self,
        request: FittedRequest,
        planned: PlannedPass,
        origin: Origin | None,
        refiner: ComponentCache | None,
        model: Model | None,
    ) -> Events:
        """Run one pass. If memory runs out before its first step, run it once more with `low_vram`."""
        timings: Timings = {}
        try:
            yield from run_pass(self._prepare(request, planned, origin, timings, refiner, model))
            return
        except MemoryError as error:
            # Once a step is done the caller has seen it, and must not see it again.
            has_steps = bool(timings.get("unet"))
            if has_steps or not self._cache.switch_to_low_vram(request, memory_error(error)):
                raise
        # This is outside `except`, because the error's traceback would keep the old sessions in memory.
        yield from run_pass(self._prepare(request, planned, origin, {}, refiner, model))

    def _prepare(
        self,
        request: FittedRequest,
        planned: PlannedPass,
        origin: Origin | None,
        timings: Timings,
        refiner: ComponentCache | None,
        model: Model | None,
    ) -> Pass:
        components = self._cache.for_request(request, model)
        if components.low_vram and refiner is not None:
            # A pass before this one, or the last run, may have left it in memory.
            refiner.free()
        if origin is not None:
            # These belong to the run's components, because the pipeline may get other settings and words meanwhile.
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
            takeover=planned.takeover,
        )
        self._report_warming_up(request)
        return job

    def _tell_of_prompts(self, request: FittedRequest) -> None:
        """Warn about parts of the prompts that are not read as words."""
        negatives = request.negative_prompts
        if request.negative_prompt_2 is not None:
            negatives = [*negatives, *request.negative_prompts_2]
        syntax, words = request.prompt_syntax, self._cache.words
        loras = NO_FOLDER if request.lora_dir is None else ""
        messages = unread(request.prompts, negatives, syntax, words, loras=loras)
        if request.prompt_2 is not None and request.prompts_2 != request.prompts:
            messages += unread(request.prompts_2, [], syntax, words, loras=OTHER_TEXT)
        for message in dict.fromkeys(messages):
            self._notices.warn(message)

    def _tell_of_loras(self, request: FittedRequest) -> None:
        """Warn of a `lora_scale` that multiplies nothing."""
        if request.lora_scale != 1 and not request.adaptation.parts:
            self._notices.warn("lora_scale has no effect without a LoRA")

    def _tell_of_controls(self, request: FittedRequest, refiner: ComponentCache | None) -> None:
        """Warn that ControlNets, image prompts and a given VAE are not for the refiner, which is another model."""
        if refiner is not None and request.controls:
            self._notices.warn(f"refiner {refiner.model.name} runs without the ControlNets")
        if refiner is not None and request.image_prompts:
            self._notices.warn(f"refiner {refiner.model.name} does not see the image prompts")
        model = self._cache.model
        if refiner is not None and model.other_vae is not None:
            self._notices.warn(
                f"VAE {model.other_vae} is for {model.name}: refiner {refiner.model.name} has its own, which decodes "
                "the images"
            )

    def _tell_of_checker(self, request: FittedRequest, refiner: ComponentCache | None) -> None:
        """Say that nothing looks at the images, because the request turns the safety checker off."""
        if request.safety_checker or request.output_type == "latent":
            return
        # A refiner's own is the one that would look.
        models = [cache.model for cache in (refiner, self._cache) if cache is not None]
        named = [one.name for one in models if one.offers_safety_checker]
        if named:
            self._notices.inform(f"the safety checker of {named[0]} is off: images are not filtered")
        elif not any(one.safety_checker_problem for one in models):
            self._notices.inform(f"{models[-1].name} has no safety checker to turn off")

    def _tell_of_words(self, request: FittedRequest, refiner: ComponentCache | None) -> None:
        """Warn about words of textual inversions that the refiner reads as text."""
        if refiner is None:
            return
        texts = [*request.prompts, *request.negative_prompts]
        for word in self._cache.words:
            if word not in refiner.words and any(word in text for text in texts):
                self._notices.warn(
                    f"refiner {refiner.model.name} reads {brief(word)} as text: load the textual inversion into a "
                    "pipeline of that model too, and give the pipeline as refiner"
                )

    def _report_warming_up(self, request: FittedRequest) -> None:
        """Tell the user if the first run at this size will take longer. Only some providers warm up."""
        name = self._cache.config.name
        if (reason := PROVIDERS[name].warms_up) and self._cache.is_first_run(request):
            self._notices.inform(
                f"warming up for {request.width}x{request.height}, {request.num_images} at once, on {name}: {reason}"
            )
