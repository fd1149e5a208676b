"""The fields of `txt2img` and `img2img`, with A1111's names and defaults.

A field is done, or it may only have values with which A1111 would make the same image: `Only` says which. Fields that
are in no class here are refused by name, unlike in A1111, which ignores them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sdrt.serve.errors import ServeError

__all__ = ["Asked", "Img2Img", "Only", "Txt2Img", "refuse_effects"]


_LONGEST_TEXT = 100_000  # characters: two prompts and their settings


@dataclass(frozen=True)
class Only:
    """The values of a field with which it has no effect. A1111 has more, and this server does not."""

    values: tuple[Any, ...]


def _only(*values: Any) -> Only:
    return Only(values)


class Asked(BaseModel):
    """A body of A1111's API. Missing fields and those that are null have A1111's defaults."""

    # Texts such as "nan" are read as numbers, and no answer could repeat them.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return (
            {name: value for name, value in data.items() if value is not None}
            if isinstance(data, dict)
            else data
        )


_Off = Annotated[bool, _only(False)]
_Nothing = Annotated[float, _only(0)]
_NoName = Annotated[str, _only("", "None", "none")]


class _Generation(Asked):
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = Field(-1, description="-1 for a random one.")
    batch_size: int = Field(1, ge=1, description="Images at once.")
    n_iter: int = Field(1, ge=1, description="How often, one after the other.")
    steps: int = Field(50, ge=1)
    cfg_scale: float = 7.0
    width: int = Field(512, ge=1)
    height: int = Field(512, ge=1)
    sampler_name: str | None = None
    sampler_index: str = Field("Euler", description="The sampler's name, if sampler_name gives none.")
    scheduler: str | None = Field(None, description="A schedule type: Automatic, Uniform, Karras, …")
    eta: float | None = None
    override_settings: dict[str, Any] = {}
    override_settings_restore_afterwards: bool = Field(
        True, description="False keeps the override_settings for later requests of this client."
    )
    alwayson_scripts: dict[str, Any] = {}
    send_images: bool = True
    force_task_id: str | None = None
    infotext: str | None = Field(
        None, max_length=_LONGEST_TEXT, description="Settings for the fields that are not given."
    )

    # Without an effect here.
    subseed: int = Field(-1, description="Has no effect, because subseed_strength is 0.")
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    do_not_save_samples: bool = Field(False, description="Has no effect: this server saves nothing.")
    do_not_save_grid: bool = Field(False, description="Has no effect: this server saves nothing.")
    refiner_switch_at: float | None = Field(None, description="Has no effect without refiner_checkpoint.")
    script_args: list[Any] = Field([], description="Has no effect without script_name.")
    comments: dict[str, Any] = Field({}, description="Has no effect in A1111 either.")
    image_similarity: float | None = Field(
        None, description="Sent by Blender's AI Render; A1111 does not read it."
    )
    sampler: str | None = Field(None, description="Sent by Blender's AI Render; A1111 does not read it.")

    # Only without an effect.
    subseed_strength: _Nothing = 0
    styles: Annotated[list[str], _only([])] = []
    restore_faces: _Off = False
    tiling: _Off = False
    disable_extra_networks: _Off = False
    save_images: _Off = False
    s_min_uncond: _Nothing = 0
    s_churn: _Nothing = 0
    s_tmin: _Nothing = 0
    s_tmax: _Nothing = 0
    s_noise: Annotated[float, _only(1)] = 1
    refiner_checkpoint: _NoName = ""
    script_name: _NoName = ""


class _SecondPass(Asked):
    enable_hr: bool = Field(False, description="Enlarge the image and denoise it again.")
    hr_scale: float = 2.0
    hr_upscaler: str | None = Field(None, description="Latent or Lanczos.")
    hr_second_pass_steps: int = Field(0, ge=0)
    hr_resize_x: int = Field(0, ge=0)
    hr_resize_y: int = Field(0, ge=0)
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str = Field("", description="Empty, or the same as prompt.")
    hr_negative_prompt: str = Field("", description="Empty, or the same as negative_prompt.")

    firstphase_width: Annotated[int, _only(0)] = 0
    firstphase_height: Annotated[int, _only(0)] = 0
    firstpass_image: Annotated[str, _only("")] = ""
    hr_checkpoint_name: Annotated[str, _only("", "None", "Use same checkpoint")] = ""


class _Image(Asked):
    init_images: list[str] = Field([], description="One image, as base64.")
    resize_mode: int = Field(0, ge=0, le=3, description="0 stretches, 1 crops, 2 fills what is missing.")
    image_cfg_scale: float | None = Field(None, description="For models that follow instructions.")
    mask: str | None = Field(None, description="White, or opaque, where to repaint, as base64.")
    mask_blur: int | None = Field(None, ge=0)
    mask_blur_x: int = Field(4, ge=0)
    mask_blur_y: int = Field(4, ge=0)
    inpainting_fill: int = Field(
        0, ge=0, le=3, description="0 fills with the colours around, 1 keeps the image."
    )
    inpaint_full_res: bool = Field(True, description="Repaint the mask's surroundings at full resolution.")
    inpaint_full_res_padding: int = Field(0, ge=0)
    inpainting_mask_invert: int = Field(0, ge=0, le=1)
    include_init_images: bool = Field(False, description="Whether parameters have the images.")

    initial_noise_multiplier: Annotated[float, _only(1)] = 1
    latent_mask: Annotated[str, _only("")] = ""
    mask_round: Annotated[bool, _only(True)] = True


# Some clients send the fields of both routes to each. A1111 reads those of its own.


class Txt2Img(_Generation, _SecondPass, _Image):
    """The body of `txt2img`. The fields of `img2img` have no effect, as there is no image."""

    denoising_strength: float = Field(0.75, ge=0, le=1, description="Of the second pass.")
    init_images: Annotated[list[str], _only([])] = []
    mask: Annotated[str, _only("")] = ""

    others: ClassVar[frozenset[str]] = frozenset(_Image.model_fields)


class Img2Img(_Generation, _SecondPass, _Image):
    """The body of `img2img`. The fields of `txt2img` have no effect, as there is no second pass."""

    denoising_strength: float = Field(0.75, ge=0, le=1)
    enable_hr: _Off = False

    others: ClassVar[frozenset[str]] = frozenset(_SecondPass.model_fields)


def refuse_effects(body: BaseModel) -> None:
    """Refuse values of fields that this server has only so that they can be without an effect.

    Raises:
        ServeError: a field has another value.
    """
    for name, field in type(body).model_fields.items():
        value = getattr(body, name)
        for only in (one for one in field.metadata if isinstance(one, Only)):
            if value not in only.values:
                raise unsupported(name, value, only.values[0])
    if min(getattr(body, "seed_resize_from_h", 0), getattr(body, "seed_resize_from_w", 0)) > 0:
        raise unsupported("seed_resize_from_h", getattr(body, "seed_resize_from_h", 0), 0)


def unsupported(name: str, value: object, instead: object) -> ServeError:
    """The error for a value with an effect that this server does not have."""
    shown = f"{value!r:.64}"
    return ServeError(
        400,
        f"{name} is {shown}, which this server does not have: leave it out, or send {instead!r}",
        field=name,
        code="unsupported",
    )
