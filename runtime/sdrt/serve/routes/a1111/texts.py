"""Turns the fields of `txt2img` and `img2img` into sdrt's settings, by way of the text that A1111 would write.

sdrt already reads A1111's texts: its samplers and schedule types, how many steps a strength runs, the sizes of a second
pass. So the fields become a text's labels, and the reader says what they mean and what sdrt cannot do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from sdrt.errors import RequestError
from sdrt.images.parameters import Parameters
from sdrt.request.labels import settings_values
from sdrt.request.table import TABLE
from sdrt.request.translated import Translation
from sdrt.request.translation import translate
from sdrt.serve.errors import ServeError
from sdrt.serve.routes.a1111.fields import Img2Img, Txt2Img

__all__ = ["FIELDS", "prompts_of", "settings_of"]

_LABELS = {
    "steps": "Steps",
    "sampler_name": "Sampler",
    "sampler_index": "Sampler",
    "scheduler": "Schedule type",
    "cfg_scale": "CFG scale",
    "seed": "Seed",
    "width": "Size",
    "height": "Size",
    "eta": "Eta",
    "denoising_strength": "Denoising strength",
    "hr_scale": "Hires upscale",
    "hr_resize_x": "Hires resize",
    "hr_resize_y": "Hires resize",
    "hr_second_pass_steps": "Hires steps",
    "hr_upscaler": "Hires upscaler",
    "hr_sampler_name": "Hires sampler",
    "hr_scheduler": "Hires schedule type",
    "hr_prompt": "Hires prompt",
    "hr_negative_prompt": "Hires negative prompt",
    "mask_blur": "Mask blur",
    "inpaint_full_res": "Inpaint area",
    "inpaint_full_res_padding": "Masked area padding",
}
"""The label in which each field is said."""

_LEAST_STRENGTH = 1e-9
_MOST_KEPT = 2000
_CLIP_SKIP = "override_settings.CLIP_stop_at_last_layers"
FIELDS: Mapping[str, str] = {
    "num_inference_steps": "steps",
    "size": "width",
    "guidance_scale": "cfg_scale",
    "scheduler": "sampler_name",
    "spacing": "scheduler",
    "strength": "denoising_strength",
    "hires_strength": "denoising_strength",
    "hires_scale": "hr_scale",
    "hires_steps": "hr_second_pass_steps",
    "hires_upscaler": "hr_upscaler",
    "hires_scheduler": "hr_sampler_name",
    "image": "init_images",
    "mask_image": "mask",
    "padding_mask_crop": "inpaint_full_res_padding",
    "image_guidance_scale": "image_cfg_scale",
    "num_images_per_prompt": "batch_size",
    "clip_skip": _CLIP_SKIP,
    "model": "override_settings.sd_model_checkpoint",
    "control_image": "alwayson_scripts.controlnet",
    "controlnet_conditioning_scale": "alwayson_scripts.controlnet",
    "lora_dir": "prompt",
}
"""A1111's fields of sdrt's settings, for errors."""
_FACTS = frozenset(row.name for row in TABLE) - {"lora", "lora_dir", "refiner"}


def prompts_of(body: Txt2Img | Img2Img) -> tuple[str, str]:
    """The prompt and the negative prompt. The infotext has those that are not given."""
    said = Parameters.parse(body.infotext or "")
    given = body.model_fields_set
    prompt = body.prompt if "prompt" in given else said.prompt
    return prompt, body.negative_prompt if "negative_prompt" in given else said.negative_prompt


def settings_of(body: Txt2Img | Img2Img, clip_skip: int) -> dict[str, Any]:
    """The settings that fields say in words and numbers, all but the prompts.

    Args:
        body: the request.
        clip_skip: from which of the text encoder's last layers to read, counted from 1.

    Raises:
        ServeError: a field has a value that sdrt does not have.
    """
    texts = _all_texts(body, clip_skip)
    seed = texts.pop("Seed", None)
    # Long texts would fill the memory.
    is_short = sum(map(len, texts.values())) < _MOST_KEPT
    found = _translated(tuple(texts.items())) if is_short else translate(texts)
    _refuse_differences(found, body)
    own = {name: text for name, text in found.texts.items() if name != "Model"}
    try:
        values = settings_values(own if seed is None else own | {"Seed": seed})
    except RequestError as error:
        field = FIELDS.get(error.argument or "", error.argument)
        raise ServeError(400, f"{field}: {error}", field=field) from None
    width, height = values.get("size", (body.width, body.height))
    return {name: value for name, value in values.items() if name in _FACTS} | {
        "width": width,
        "height": height,
    }


@lru_cache(maxsize=256)
def _translated(texts: tuple[tuple[str, str], ...]) -> Translation:
    """What labels mean. Requests differ mostly in their prompts and seeds, and reading takes milliseconds."""
    return translate(dict(texts))


def _all_texts(body: Txt2Img | Img2Img, clip_skip: int) -> dict[str, str]:
    """The labels of the fields. Those of the infotext count where a field is not given."""
    own = dict(_texts(body))
    if clip_skip > 1:
        own["Clip skip"] = str(clip_skip)
    if not body.infotext:
        return own
    given = {_LABELS[name] for name in body.model_fields_set if name in _LABELS}
    said = {
        name: text for name, text in Parameters.parse(body.infotext).settings.items() if name not in given
    }
    return own | said


def _texts(body: Txt2Img | Img2Img) -> Iterator[tuple[str, str]]:
    yield "Steps", str(body.steps)
    yield "Sampler", body.sampler_name or body.sampler_index
    yield "Schedule type", body.scheduler or "Automatic"
    yield "CFG scale", str(body.cfg_scale)
    yield "Size", f"{body.width}x{body.height}"
    if body.seed != -1:
        yield "Seed", str(body.seed)
    if body.eta is not None:
        yield "Eta", f"{body.eta:g}"
    yield from _second_pass(body) if isinstance(body, Txt2Img) else _image(body)


def _second_pass(body: Txt2Img) -> Iterator[tuple[str, str]]:
    if not body.enable_hr:
        return
    yield "Denoising strength", str(body.denoising_strength)
    if body.hr_resize_x or body.hr_resize_y:
        yield "Hires resize", f"{body.hr_resize_x}x{body.hr_resize_y}"
    else:
        yield "Hires upscale", str(body.hr_scale)
    yield "Hires steps", str(body.hr_second_pass_steps)
    yield "Hires upscaler", body.hr_upscaler or "Latent"
    if body.hr_sampler_name:
        yield "Hires sampler", body.hr_sampler_name
    if body.hr_scheduler:
        yield "Hires schedule type", body.hr_scheduler
    if body.hr_prompt not in ("", body.prompt):
        yield "Hires prompt", body.hr_prompt
    if body.hr_negative_prompt not in ("", body.negative_prompt):
        yield "Hires negative prompt", body.hr_negative_prompt


def _image(body: Img2Img) -> Iterator[tuple[str, str]]:
    # With 0, A1111 runs the last step.
    yield "Denoising strength", str(body.denoising_strength or _LEAST_STRENGTH)
    if not body.mask:
        return
    if body.mask_blur is None and body.mask_blur_x != body.mask_blur_y:
        raise ServeError(
            400,
            f"mask_blur_x is {body.mask_blur_x} and mask_blur_y is {body.mask_blur_y}: this server blurs both alike",
            field="mask_blur_x",
            code="unsupported",
        )
    yield "Mask blur", str(body.mask_blur_x if body.mask_blur is None else body.mask_blur)
    yield "Inpaint area", "Only masked" if body.inpaint_full_res else "Whole picture"
    yield "Masked area padding", str(body.inpaint_full_res_padding)


def _refuse_differences(found: Translation, body: Txt2Img | Img2Img) -> None:
    """Refuse what sdrt's reader cannot do as A1111 does it. Details such as how noise is drawn are in the docs."""
    for one in found.differences:
        if one.minor:
            continue
        field = _field_of(one.label, body)
        value = f" is {one.value!r:.64}" if one.value else ""
        raise ServeError(
            400,
            f"{field}{value}, which this server does not have{_known(field)}",
            field=field,
            code="unsupported",
        )


def _field_of(label: str, body: Txt2Img | Img2Img) -> str:
    named = [field for field, one in _LABELS.items() if one == label and field in type(body).model_fields]
    return next(
        (field for field in named if field in body.model_fields_set), "infotext" if not named else named[0]
    )


def _known(field: str) -> str:
    """What would be right, for fields with names."""
    from sdrt.schedulers import SAMPLERS, SPACING_LABELS

    if field in ("sampler_name", "sampler_index", "hr_sampler_name"):
        return f": expected one of {', '.join(row.display_name for row in SAMPLERS.values())}"
    if field in ("scheduler", "hr_scheduler"):
        return f": expected one of Automatic, Uniform, {', '.join(SPACING_LABELS.values())}"
    return ": expected Latent or Lanczos" if field == "hr_upscaler" else ""
