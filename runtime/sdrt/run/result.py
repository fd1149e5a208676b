"""What a run yields: an event after each step, then the images."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief, refused, wrong_value
from sdrt.errors import RequestError
from sdrt.foreign.checked import ExplainsAttributes
from sdrt.foreign.pipeline import RESULT
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
    "checked_names",
    "wrong_return",
]

Array = NDArray[np.float32]
Events = Generator["GenerationStep | StableDiffusionPipelineOutput", None, None]
_ONE = np.float32(1)
CALLBACK_TENSORS = ("latents", "denoised", "prompt_embeds", "negative_prompt_embeds")
# Tensors that a callback may return unchanged, and the reason why it cannot change them.
_READ_ONLY = {
    "denoised": "it follows from the latents",
    "negative_prompt_embeds": "the unconditional half is the first half of prompt_embeds",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class StableDiffusionPipelineOutput(ExplainsAttributes):
    """The images of a call, and how they were made.

    As in diffusers, `output[0]` and `output["images"]` are the images. The output can also be unpacked, as the tuple
    that diffusers returns with `return_dict=False`.

    Attributes:
        images: PIL images; float32 [N, H, W, 3] in 0..1 for `output_type="np"`; latents [N, C, h, w] for "latent".
        seeds: for each image, the seed that makes it again on its own.
        request: the request, completed with the size, the seed and the guidance scale. It makes the same images again.
        nsfw_content_detected: for each image, whether the safety checker flagged it, so that it is black. None, as in
            diffusers, if no safety checker has seen the images.
        timings: the seconds that `text_encoder`, `vae_encoder`, `vae_decoder` and `safety_checker` took. In every
            family, `unet` is a list with the seconds of each evaluation of the denoiser.
        origin: the model and the pipeline's settings, for `metadata` and `save`.
        skipped_calls: how many evaluations `accelerate` made without a call of the denoiser.
    """

    _words: ClassVar = RESULT
    _arguments: ClassVar = {}

    images: Any
    seeds: list[int]
    request: Request
    nsfw_content_detected: list[bool] | None = None
    timings: dict[str, Any] = field(default_factory=dict)
    origin: Origin | None = field(default=None, repr=False)
    skipped_calls: int = 0

    def __iter__(self) -> Iterator[Any]:
        """Yield the images, then `nsfw_content_detected`."""
        yield from (self.images, self.nsfw_content_detected)

    def __getitem__(self, key: int | str) -> Any:
        """Return an attribute by its name, or by its place in the tuple that `__iter__` yields.

        Raises:
            UnknownAttributeError: there is no such name.
            IndexError: there is no such place.
        """
        if isinstance(key, str):
            return getattr(self, key)
        return (self.images, self.nsfw_content_detected)[key]

    def metadata(self, index: int, *, batch_size: int | None = None) -> Parameters:
        """Return how image `index` was made, as `sdrt generate` writes it into its files.

        `batch_size` is the number of images that were denoised at once; by default, the number of images here. The
        prompt is empty if the call gave embeddings instead.

        Raises:
            RequestError: there is no such image, or no pipeline made this output.
        """
        index = integer("index", index, 0, len(self.seeds) - 1)
        if self.origin is None:
            raise RequestError.expected(
                "this output does not say what made it", "an output that a pipeline returned"
            )
        batch = len(self.seeds) if batch_size is None else integer("batch_size", batch_size, 1, 2**31)
        flagged = None if self.nsfw_content_detected is None else self.nsfw_content_detected[index]
        return self.origin.parameters(
            self.request, index, self._size(index), batch_size=batch, flagged=flagged
        )

    def save(self, path: str | Path, *, overwrite: bool = False, metadata: bool = True) -> list[Path]:
        """Write every image to a PNG, JPEG or WebP file, chosen by the extension. Return the paths of the files.

        Args:
            path: a file name, which may contain `{seed}` and `{index}`, or a folder. If several images have the same
                name, sdrt adds `-0`, `-1`, … before the extension.
            overwrite: whether to replace existing files.
            metadata: whether to write how the images were made into the files.

        A failure never leaves a partly written file.

        Raises:
            RequestError: the name or its extension is wrong, a file exists and `overwrite` is False, the format cannot
                hold an image, or `images` are latents. Then no file is written.
            SdrtError: a file cannot be written.
        """
        if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
            raise wrong_value("path", path, "the name of an image file")
        images = [self._pil(index) for index in range(len(self.seeds))]
        parameters = [self.metadata(index) if metadata else None for index in range(len(images))]
        try:
            paths = file_names(os.fspath(path), self.seeds)
            for file, image, own in zip(paths, images, parameters, strict=True):
                _check_file(file, image, own, overwrite=overwrite)
        except RequestError:
            raise
        except (OSError, ValueError) as error:
            raise RequestError.advised(
                f"{brief(path)} cannot be written: {error}",
                "choose another name",
                joint="; ",
                path=Path(path),
            ) from error
        for file, image, own in zip(paths, images, parameters, strict=True):
            write_image(file, image, None if own is None else str(own), force=overwrite)
        return list(paths)

    def _pil(self, index: int) -> Image.Image:
        if self.request.output_type == "latent":
            raise RequestError.expected(
                "images are latents, which cannot be saved as files",
                "output_type 'pil' or 'np'",
                argument="output_type",
            )
        image: Image.Image = self.images[index]
        return to_pil(self.images[index]) if isinstance(self.images[index], np.ndarray) else image

    def _size(self, index: int) -> tuple[int, int]:
        """Return the width and height of an image in pixels. For latents they have no meaning, and are not used."""
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
    """A denoising step that is done. Until the next step begins, the caller may change the run with `update`.

    Attributes:
        index: the step's index, counted from 0.
        timestep: the timestep of the step's evaluation.
        last: whether this is the run's last step.
        num_steps: the number of steps of the run; None if the scheduler chooses its steps as it goes.
        denoised: the estimate of the clean latents [N, C, h, w], for previews.
    """

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
        self.num_steps: int | None = None if plan.adaptive else plan.num_evaluations
        self.denoised: Array = step.denoised
        self._x, self._scale = step.x, np.float32(plan.latents_scale(step.sigma))
        self._denoiser: Denoiser | None = denoiser
        # The next step uses the same arrays unless its prompt differs, so changes to them persist.
        self._inputs, self._embeds, self._images = inputs, inputs[embeds], images
        self._over = False
        # Whether the caller changed the run in this step.
        self.changed = False

    @property
    def latents(self) -> Array:
        """A copy of the latents [N, C, h, w], with the scale of diffusers' `latents`."""
        latents: Array = self._x * self._scale
        return latents

    def tensors(self, names: Sequence[str]) -> dict[str, Array | None]:
        """Return copies of the named tensors, which must be in `CALLBACK_TENSORS`.

        As in diffusers, `prompt_embeds` has the unconditional half first. Without guidance, `negative_prompt_embeds` is
        None.

        Raises:
            RequestError: `names` is not a list, or a name is unknown.
        """
        makers: dict[str, Callable[[], Array | None]] = {
            "latents": lambda: self.latents,
            "denoised": self.denoised.copy,
            "prompt_embeds": self._embeds.copy,
            "negative_prompt_embeds": self._negative,
        }
        return {name: makers[name]() for name in checked_names("names", names)}

    def update(self, tensors: Mapping[str, Any]) -> None:
        """Continue the run with other `latents` or `prompt_embeds` (with guidance, the unconditional half first).

        Raises:
            RequestError: a name or shape is wrong, a value is not finite, or the next step has begun.
        """
        if self._over or self._denoiser is None:
            raise RequestError.advised(
                f"step {self.index} is over",
                "update a step before you ask the stream for the next one",
                argument="tensors",
            )
        if not isinstance(tensors, Mapping):
            raise wrong_value("tensors", tensors, "a dict of tensors")
        for name, value in tensors.items():
            if name not in CALLBACK_TENSORS:
                raise wrong_return(f"{name!r}", ", ".join(CALLBACK_TENSORS), str(name))
            if _unchanged(value, self.tensors([name])[name]):
                continue
            self.changed = True
            if name == "latents":
                np.copyto(self._x, _finite(name, _checked(name, value, self._x.shape), self._scale))
            elif name == "prompt_embeds":
                np.copyto(self._embeds, _checked(name, value, self._embeds.shape))
                self._denoiser.condition(self._inputs)
            else:
                raise RequestError(
                    f"the callback changed {name}, which has no effect: {_READ_ONLY[name]}",
                    argument=name,
                    fits="other latents or prompt_embeds",
                )

    def end(self) -> None:
        """Refuse later updates, because they would have no effect on the run."""
        self._over = True
        # A caller may keep the last step, which must not keep the U-Net in memory while the VAE decodes.
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
        raise wrong_return(f"{name} with rows of unequal length", str(shape), name) from None
    if array.shape != shape or array.dtype.kind not in "fiu":
        raise wrong_return(
            f"{name} of shape {array.shape} and dtype {array.dtype}", f"numbers of shape {shape}", name
        )
    return _finite(name, array)


def _finite(name: str, array: NDArray[Any], divisor: np.float32 = _ONE) -> Array:
    """Return `array / divisor` in float32. Raises `RequestError` if a value is not finite, or overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        divided = array.astype(np.float32)
        divided /= divisor
    if not np.isfinite(divided).all():
        raise wrong_return(f"{name} with NaN or infinity", "finite numbers", name)
    return divided


def checked_names(argument: str, names: Sequence[str]) -> tuple[str, ...]:
    """Check a list of names of tensors. Raises `RequestError` if one is not in `CALLBACK_TENSORS`."""
    if not isinstance(names, (list, tuple)):
        raise wrong_value(argument, names, "a list of names")
    if unknown := [name for name in names if name not in CALLBACK_TENSORS]:
        raise refused(argument, f"has {brief(unknown[0])}", f"any of {', '.join(CALLBACK_TENSORS)}")
    return tuple(names)


def wrong_return(what: str, fits: str, argument: str) -> RequestError:
    """The error for a wrong value that a callback returned or a caller gave to `GenerationStep.update`."""
    return RequestError.expected(f"the callback returned {what}", fits, argument=argument)
