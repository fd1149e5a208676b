"""The fields of OpenAI's requests and our own beside them, and the settings that they stand for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sdrt.request.checks import MAX_PROMPT_LENGTH
from sdrt.request.table import parse_size
from sdrt.serve.errors import ServeError
from sdrt.serve.routes.common import Strict
from sdrt.serve.routes.jobs import Lora
from sdrt.serve.task import SUFFIXES, FileFormat

__all__ = ["FIELDS", "Asked", "Edit", "Generation", "Lora", "Prompted", "Variation"]

FIELDS = {
    "num_inference_steps": "steps",
    "num_images_per_prompt": "n",
    "width": "size",
    "height": "size",
    "mask_image": "mask",
    "ip_adapter_image": "image",
    "accelerate": "quality",
}
"""What requests here call the settings that have another name."""

_ACCELERATE = {"low": "fast", "medium": "balanced"}
"""How a quality leaves out calls of the U-Net. The others leave none out."""
_TOLD = {"low": "low", "medium": "medium"}
_HIGH_FIDELITY = 0.5
_VARIATION = 0.6
"""How much is changed of an image that `input_fidelity` shall keep, and of one that is varied."""


class Asked(Strict):
    """What all requests for images have."""

    model: str | None = Field(
        None, description="The name of a model of this server. The default is its first."
    )
    n: Annotated[int, Field(ge=1, le=10)] | None = Field(None, description="How many images to make.")
    size: str | None = Field(None, description="WIDTHxHEIGHT in pixels, or auto.")
    response_format: Literal["b64_json", "url"] | None = Field(
        None,
        description="The image in the answer (the default), or its address on this server for ten minutes.",
    )
    output_format: Literal["png", "jpeg", "webp"] | None = Field(None, description="The default is png.")
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None, description="The quality of JPEG and WebP."
    )
    user: str | None = Field(None, description="Told back as safety_identifier.")
    safety_identifier: str | None = Field(None, description="Told back.")
    seed: int | None = Field(None, description="The seed of the first image. Further ones count up from it.")
    steps: Annotated[int, Field(ge=1)] | None = Field(None, description="The default is the model's.")
    guidance_scale: float | None = Field(None, description="How closely to follow the prompt.")
    negative_prompt: str | None = Field(None, description="What not to show.")
    scheduler: str | None = Field(None, description="A name such as euler. The default is the model's.")
    spacing: str | None = Field(None, description="Which noise levels the steps visit, such as karras.")
    strength: float | None = Field(None, description="How much to change the image, from 0 to 1.")
    lora: Annotated[list[Lora], Field(max_length=16)] | None = Field(
        None, description="LoRAs by their names."
    )
    clip_skip: int | None = Field(None, description="How many layers of the text encoder to leave out.")
    metadata: bool | None = Field(None, description="Whether the file says how the image was made. It does.")

    @property
    def file_format(self) -> FileFormat:
        """The format of the images.

        Raises:
            ServeError: it is not compressed.
        """
        name, quality = self.output_format or "png", self.output_compression
        if name == "png":
            if quality not in (None, 100):
                raise _refused(
                    "output_compression", f"is {quality}, but PNG has none", "jpeg or webp as output_format"
                )
            quality = None
        return FileFormat(
            suffix=SUFFIXES[name],
            quality=None if quality is None else max(1, quality),
            metadata=self.metadata is not False,
        )

    def settings(self) -> dict[str, Any]:
        """The settings of the pipeline, without images and LoRAs.

        Raises:
            ServeError: a field is wrong.
        """
        width, height = _sides(self.size)
        return {
            "width": width,
            "height": height,
            "num_images_per_prompt": self.n,
            "num_inference_steps": self.steps,
            **{name: getattr(self, name) for name in _SAME},
        }

    @property
    def identifier(self) -> str | None:
        """Whom the images are for, by the client's own word."""
        return self.safety_identifier or self.user or None


_SAME = ("seed", "guidance_scale", "negative_prompt", "scheduler", "spacing", "strength", "clip_skip")


class Prompted(Asked):
    """What requests with a prompt have."""

    prompt: Annotated[str, Field(max_length=MAX_PROMPT_LENGTH)] = Field(description="What to make.")
    quality: Literal["auto", "low", "medium", "high", "standard", "hd"] | None = Field(
        None, description="low and medium call the U-Net in a third and in half of the steps."
    )
    background: Literal["auto", "opaque", "transparent"] | None = Field(None, description="Not transparent.")
    stream: bool | None = Field(None, description="Whether to answer with server-sent events.")
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = Field(
        None, description="How many previews the events have."
    )

    @property
    def told_quality(self) -> str:
        """The quality that the answer names. `high` is all that the model's steps give."""
        return _TOLD.get(self.quality or "auto", "high")

    @property
    def notices(self) -> list[str]:
        """What the server does not do of what was asked."""
        return []

    def settings(self) -> dict[str, Any]:
        """As above, with the prompt and the quality."""
        self._check()
        quality = _ACCELERATE.get(self.quality or "auto")
        return super().settings() | {"prompt": self.prompt, "accelerate": quality}

    def _check(self) -> None:
        if self.background == "transparent":
            raise _refused("background", "is transparent, which no model here can make", "opaque or auto")
        if self.stream and self.response_format == "url":
            raise _refused(
                "response_format", "is url, but events have the image itself", "b64_json with stream"
            )
        if self.partial_images and not self.stream:
            raise _refused("partial_images", f"is {self.partial_images} without stream", "stream to be true")


class Generation(Prompted):
    """The body of `POST /v1/images/generations`."""

    moderation: Literal["auto", "low"] | None = Field(
        None, description="With both, the model's safety checker looks, if it has one."
    )
    style: Literal["vivid", "natural"] | None = Field(None, description="Has no effect, as the answer says.")

    @property
    def notices(self) -> list[str]:
        """What the server does not do of what was asked."""
        if self.style is None:
            return []
        return [f"style {self.style} has no effect: describe the style in the prompt"]


class Edit(Prompted):
    """The texts of the form of `POST /v1/images/edits`."""

    input_fidelity: Literal["high", "low"] | None = Field(
        None, description=f"high is a strength of {_HIGH_FIDELITY}, low the default one."
    )

    def settings(self) -> dict[str, Any]:
        """As above, with the strength that the fidelity stands for."""
        settings = super().settings()
        if self.input_fidelity is not None and self.strength is not None:
            raise _refused("input_fidelity", "and strength say the same", "one of them")
        if self.input_fidelity == "high":
            settings["strength"] = _HIGH_FIDELITY
        return settings


class Variation(Asked):
    """The texts of the form of `POST /v1/images/variations`."""

    def settings(self) -> dict[str, Any]:
        """As above, with an empty prompt and a moderate strength."""
        settings = super().settings() | {"prompt": ""}
        if self.strength is None:
            settings["strength"] = _VARIATION
        return settings


def _sides(size: str | None) -> tuple[int | None, int | None]:
    """The width and height. None for those of the model, or of the image."""
    if size is None or size == "auto":
        return None, None
    try:
        return parse_size(size)
    except ValueError:
        raise _refused("size", f"is {size[:64]!r}", "WIDTHxHEIGHT such as 512x512, or auto") from None


def _refused(field: str, problem: str, fits: str) -> ServeError:
    return ServeError(400, f"{field} {problem}: expected {fits}", field=field, code="invalid_value")
