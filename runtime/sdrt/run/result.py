"""What a run gives: each step as it is taken, then the pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief
from sdrt.errors import RequestError
from sdrt.images.arrays import to_pil
from sdrt.images.files import check_capacity, check_target, file_names, write_image
from sdrt.images.metadata import Parameters
from sdrt.request.checks import integer
from sdrt.request.request import Request
from sdrt.run.origin import Origin

if TYPE_CHECKING:
    from PIL import Image

    from sdrt.run.denoiser import Denoiser
    from sdrt.schedulers import Plan, Step

__all__ = [
    "CALLBACK_TENSORS",
    "Events",
    "GenerationStep",
    "StableDiffusionPipelineOutput",
    "callback_answer",
    "callback_tensors",
]

Array = NDArray[np.float32]
Events = Generator["GenerationStep | StableDiffusionPipelineOutput", None, None]
_ONE = np.float32(1)
CALLBACK_TENSORS = ("latents", "denoised", "prompt_embeds", "negative_prompt_embeds")
# What a callback may hand back as it was, but not change.
_FIXED = {
    "denoised": "it follows from the latents",
    "negative_prompt_embeds": "the unconditional half is the first half of prompt_embeds",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class StableDiffusionPipelineOutput:
    """What a call gives.

    `images`: PIL pictures; or float32 [N, H, W, 3] in 0..1 for "np"; or latents [N, C, h, w] for "latent".
    `seeds`: the seed that makes each image alone again. `timings`: seconds of each part; of the denoiser, `unet`, a
    list with an entry for each evaluation.
    `origin`: the model and the pipeline's settings, for `metadata` and `save`.
    """

    images: Any
    seeds: list[int]
    request: Request
    timings: dict[str, Any] = field(default_factory=dict)
    origin: Origin | None = field(default=None, repr=False)

    def metadata(self, index: int, *, batch_size: int | None = None) -> Parameters:
        """How image `index` was made: what `sdrt generate` writes into its files.

        `batch_size` replaces the number of images that were denoised at once. Embeddings that were given in the place
        of a prompt leave it empty.

        Raises:
            RequestError: there is no such image, or the output was not made by a pipeline.
        """
        index = integer("index", index, 0, len(self.seeds) - 1)
        if self.origin is None:
            raise RequestError("this output says not what made it: expected one that a pipeline returned")
        batch = len(self.seeds) if batch_size is None else batch_size
        return self.origin.parameters(self.request, index, self._size(index), batch_size=batch)

    def save(self, path: str | Path, *, overwrite: bool = False, metadata: bool = True) -> list[Path]:
        """Write every image to a PNG, JPEG or WebP file, as the extension says; return the files' paths.

        `path` is a name with optional `{seed}` and `{index}`, or a folder; several images of one name get `-0`, `-1`,
        … before the extension. Each file is written in one piece or not at all. `metadata=False` leaves out how the
        images were made.

        Raises:
            RequestError: the name or its extension is wrong, a file exists and `overwrite` is false, the format cannot
                hold an image, or `images` are latents; nothing is written then.
            SdrtError: a file cannot be written.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise RequestError(f"path is {brief(path)}: expected the name of an image file")
        images = [self._pil(index) for index in range(len(self.seeds))]
        told = [self.metadata(index) if metadata else None for index in range(len(images))]
        try:
            paths = file_names(os.fspath(path), self.seeds)
            for one, image, parameters in zip(paths, images, told, strict=True):
                _check_file(one, image, parameters, overwrite=overwrite)
        except RequestError:
            raise
        except (OSError, ValueError) as error:
            raise RequestError(f"{brief(path)} cannot be written: {error}; choose another name") from error
        for one, image, parameters in zip(paths, images, told, strict=True):
            write_image(one, image, None if parameters is None else str(parameters), force=overwrite)
        return list(paths)

    def _pil(self, index: int) -> Image.Image:
        if self.request.output_type == "latent":
            raise RequestError("images are latents, which no file holds: expected output_type 'pil' or 'np'")
        image: Image.Image = self.images[index]
        return to_pil(self.images[index]) if isinstance(self.images[index], np.ndarray) else image

    def _size(self, index: int) -> tuple[int, int]:
        """Width and height of an image, in pixels; of latents, the last axes, which no one reads."""
        image = self.images[index]
        if not isinstance(image, np.ndarray):
            width, height = image.size
            return width, height
        return image.shape[1], image.shape[0]


def _check_file(path: Path, image: Image.Image, parameters: Parameters | None, *, overwrite: bool) -> None:
    check_target(path, force=overwrite)
    prompts = 0 if parameters is None else len(parameters.prompt) + len(parameters.negative_prompt)
    check_capacity(path, sides=image.size, text=prompts)


class GenerationStep:
    """One denoising step that has been taken; until the next one, the caller may change the run."""

    def __init__(
        self,
        step: Step,
        plan: Plan,
        denoiser: Denoiser,
        inputs: Mapping[str, NDArray[Any]],
        embeds: str,
        images: int,
    ) -> None:
        self.index, self.timestep, self.last = step.index, step.timestep, step.last
        self.num_steps = plan.num_evaluations
        self.denoised: Array = step.denoised
        """Estimate of the clean latents [N, C, h, w], for previews."""
        self._x, self._scale = step.x, np.float32(plan.latents_scale(step.sigma))
        self._denoiser: Denoiser | None = denoiser
        # Those of the next step are these arrays, unless the prompt changes: what is written into them stays.
        self._inputs, self._embeds, self._images = inputs, inputs[embeds], images
        self._over = False

    @property
    def latents(self) -> Array:
        """A copy of the latents [N, C, h, w], scaled as diffusers' `latents`."""
        latents: Array = self._x * self._scale
        return latents

    def tensors(self, names: Sequence[str]) -> dict[str, Array | None]:
        """Copies of the named tensors, of `CALLBACK_TENSORS`; as in diffusers, `prompt_embeds` holds both halves.

        Without guidance there are no `negative_prompt_embeds`: they are None.
        """
        makers: dict[str, Callable[[], Array | None]] = {
            "latents": lambda: self.latents,
            "denoised": self.denoised.copy,
            "prompt_embeds": self._embeds.copy,
            "negative_prompt_embeds": self._negative,
        }
        return {name: makers[name]() for name in names}

    def update(self, tensors: Mapping[str, Any]) -> None:
        """Go on with these `latents` or `prompt_embeds` (with guidance: unconditional half first).

        Raises `RequestError` for other names and shapes, and once the run has left this step.
        """
        if self._over or self._denoiser is None:
            raise RequestError(
                f"step {self.index} is over: update a step before the stream is asked for the next one"
            )
        for name, value in tensors.items():
            if name not in CALLBACK_TENSORS:
                raise RequestError(f"the callback returned {name!r}: expected {', '.join(CALLBACK_TENSORS)}")
            if _unchanged(value, self.tensors([name])[name]):
                continue
            if name == "latents":
                np.copyto(self._x, _finite(name, _checked(name, value, self._x.shape), self._scale))
            elif name == "prompt_embeds":
                np.copyto(self._embeds, _checked(name, value, self._embeds.shape))
                self._denoiser.condition(self._inputs)
            else:
                raise RequestError(f"the callback changed {name}, which has no effect: {_FIXED[name]}")

    def end(self) -> None:
        """The run goes on, or has ended: what is written to this step would be lost, or reach another run."""
        self._over = True
        # Whoever keeps the last step would keep the U-Net in memory while the VAE decodes.
        self._denoiser = None

    def _negative(self) -> Array | None:
        guided = len(self._embeds) > self._images
        return self._embeds[: self._images].copy() if guided else None


def _unchanged(value: object, current: Array | None) -> bool:
    if value is None or current is None:
        return value is current
    return isinstance(value, np.ndarray) and np.array_equal(value, current)


def _checked(name: str, value: object, shape: tuple[int, ...]) -> Array:
    try:
        array = np.asarray(value)
    except ValueError:
        raise RequestError(
            f"the callback returned {name} with rows of unequal length: expected {shape}"
        ) from None
    if array.shape != shape or array.dtype.kind not in "fiu":
        raise RequestError(
            f"the callback returned {name} of shape {array.shape} and dtype {array.dtype}: "
            f"expected numbers of shape {shape}"
        )
    return _finite(name, array)


def _finite(name: str, array: NDArray[Any], divisor: np.float32 = _ONE) -> Array:
    """`array / divisor`; a number that overflows in float32 is no number either."""
    with np.errstate(over="ignore", invalid="ignore"):
        divided = array.astype(np.float32)
        divided /= divisor
    if not np.isfinite(divided).all():
        raise RequestError(f"the callback returned {name} with NaN or infinity: expected finite numbers")
    return divided


def callback_tensors(names: Sequence[str]) -> tuple[str, ...]:
    """The tensors that a call asks for, if they are of `CALLBACK_TENSORS`."""
    if not isinstance(names, (list, tuple)):
        raise RequestError(f"callback_on_step_end_tensor_inputs is {brief(names)}: expected a list of names")
    if unknown := [name for name in names if name not in CALLBACK_TENSORS]:
        raise RequestError(
            f"callback_on_step_end_tensor_inputs has {brief(unknown[0])}: "
            f"expected any of {', '.join(CALLBACK_TENSORS)}"
        )
    return tuple(names)


def callback_answer(returned: object, names: Sequence[str]) -> Mapping[str, Any]:
    """What a callback returned, if it may: some of the tensors that it was given, or nothing."""
    if returned is None:
        return {}
    if not isinstance(returned, Mapping):
        raise RequestError(f"the callback returned {type(returned).__name__}: expected a dict or None")
    if unasked := [name for name in returned if name not in names]:
        raise RequestError(
            f"the callback returned {unasked[0]!r}: expected some of {', '.join(names) or 'nothing'}, "
            "what callback_on_step_end_tensor_inputs asks for"
        )
    return returned
