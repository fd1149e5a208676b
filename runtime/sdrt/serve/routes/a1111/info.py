"""The answers of `txt2img` and `img2img`: `info` as A1111 fills it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sdrt.common.version import __version__
from sdrt.images.parameters import Parameters
from sdrt.request.table import parse_size
from sdrt.serve.routes.a1111.fields import Img2Img, Txt2Img
from sdrt.serve.routes.a1111.model_facts import ModelFacts
from sdrt.serve.routes.a1111.texts import prompts_of
from sdrt.serve.task import Made

__all__ = ["info_text", "timestamp"]

_SUBSEED_BITS = 32
_OWN_FIELDS = frozenset(
    # Labels of a text that have fields of their own in `info`.
    {
        *("Steps", "Sampler", "CFG scale", "Seed", "Size", "Model hash", "Model", "VAE hash", "VAE"),
        *("Denoising strength", "Clip skip", "Version"),
    }
)


def timestamp(seconds: float) -> str:
    """A time as A1111 writes it, such as 20250131235959."""
    return time.strftime("%Y%m%d%H%M%S", time.localtime(seconds))


def info_text(
    body: Txt2Img | Img2Img,
    made: Sequence[Made],
    *,
    model: str,
    facts: ModelFacts,
    clip_skip: int,
    seed: int,
    began: float,
) -> str:
    """The JSON of `info`.

    Args:
        body: the request.
        made: the results of its batches, as many as are done.
        model: the model's name.
        facts: what is known of the model.
        clip_skip: `CLIP_stop_at_last_layers`.
        seed: the seed of the first image.
        began: when it was accepted, in seconds of `time.time()`.
    """
    images = [image for one in made for image in one.images]
    texts = [Parameters.parse(image.text) for image in images]
    # Nothing is made if the client has stopped it at once. The request then says what would have been.
    first = texts[0] if texts else _of_body(body)
    subseeds = _subseeds(body, max(1, len(images)))
    return json.dumps(
        {
            "prompt": first.prompt,
            "all_prompts": [one.prompt for one in texts],
            "negative_prompt": first.negative_prompt,
            "all_negative_prompts": [one.negative_prompt for one in texts],
            "seed": images[0].seed if images else seed,
            "all_seeds": [image.seed for image in images],
            "subseed": subseeds[0],
            "all_subseeds": subseeds[: len(images)],
            **_of_request(body, first),
            "sd_model_name": model,
            "sd_model_hash": facts.short_hash or "",
            "infotexts": [image.text for image in images],
            "job_timestamp": timestamp(began),
            "clip_skip": clip_skip,
            "is_using_inpainting_conditioning": facts.sees_mask,
            "version": f"sdrt {__version__}",
        },
        ensure_ascii=False,
    )


def _of_body(body: Txt2Img | Img2Img) -> Parameters:
    prompt, negative = prompts_of(body)
    settings = {
        "Sampler": body.sampler_name or body.sampler_index,
        "Steps": str(body.steps),
        "CFG scale": str(body.cfg_scale),
        "Size": f"{body.width}x{body.height}",
    }
    return Parameters(prompt=prompt, negative_prompt=negative, settings=settings)


def _subseeds(body: Txt2Img | Img2Img, count: int) -> list[int]:
    """The subseeds, which have no effect. As in A1111, -1 means random ones."""
    first = body.subseed if body.subseed != -1 else secrets.randbits(_SUBSEED_BITS)
    return [first + index for index in range(count)]


def _of_request(body: Txt2Img | Img2Img, text: Parameters) -> dict[str, Any]:
    settings = text.settings
    width, height = parse_size(settings["Size"])
    has_strength = isinstance(body, Img2Img) or body.enable_hr
    return {
        "subseed_strength": body.subseed_strength,
        "width": width,
        "height": height,
        "sampler_name": settings["Sampler"],
        "cfg_scale": float(settings["CFG scale"]),
        "steps": int(settings["Steps"]),
        "batch_size": body.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": body.seed_resize_from_w,
        "seed_resize_from_h": body.seed_resize_from_h,
        "denoising_strength": body.denoising_strength if has_strength else None,
        "extra_generation_params": _extra(settings),
        "index_of_first_image": 0,
        "styles": [],
    }


def _extra(settings: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name not in _OWN_FIELDS}
