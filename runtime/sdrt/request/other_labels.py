"""Labels that other programs write: A1111 with its extensions, Forge, SD.Next and Civitai.

A label is compared in the form of `plain`, so "CLiP-skip" is "clip skip" and "freeu_enabled" is "freeu enabled". All
patterns here have that form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

__all__ = ["ALIASES", "group_of", "has_no_effect", "is_off", "plain"]

ALIASES: Mapping[str, str] = {
    "cfg": "CFG scale",
    "guidance": "CFG scale",
    "guidance scale": "CFG scale",
    "sampling steps": "Steps",
    "sampling method": "Sampler",
    "sampler name": "Sampler",
    "checkpoint": "Model",
    "model name": "Model",
    # SD.Next
    "hires scale": "Hires upscale",
    "hires strength": "Denoising strength",
    "sampler eta": "Eta",
    "ti": "Embeddings",
    "ti hashes": "Embeddings",
    "used embeddings": "Embeddings",
    "sampler eta delta": "ENSD",
    "sampler sigma": "Schedule type",
    "sampler spacing": "Spacing",
    "sampler timesteps": "Timesteps",
}
"""Other names of a label of sdrt or A1111."""

_WITHOUT_EFFECT = (
    *(
        "version",
        "user",
        "app",
        "backend",
        "pipeline",
        "operations",
        "comment",
        "created date",
        "date",
        "time",
    ),
    *("model hash", "refiner hash", "vae hash", "module hash*", "init image*", "low vram"),
    *("batch", "batch size", "batch pos", "index", "grid", "script", "? type", "? values", "fixed ? values"),
    *("x script*", "y script*", "z script*", "fixed ? script values", "civitai metadata"),
    # These made the prompt that is in the text.
    *("style", "styles", "styles array", "wildcards"),
    *("template", "negative template", "original", "original prompt", "original negative", "lang", "rating"),
    # Fooocus writes these beside the texts and the steps that they lead to.
    *("raw prompt", "raw negative prompt", "performance"),
    # The name of the sampler whose settings these are. The others have a label too.
    "sampler node",
    # SD.Next says these beside the scale and the strength.
    *("hires size", "hires force", "hires mode", "refine"),
    # Only together with others that have an effect.
    *(
        "variation seed",
        "cache fp16 weight for lora",
        "adetailer version",
    ),
)

_NEUTRAL: Mapping[str, tuple[str, ...]] = {
    "variation seed strength": ("0",),
    "variation strength": ("0",),
    "seed resize from": ("0x0", "-1x-1", "-1x0", "0x-1"),
    "ensd": ("0",),
    "eta": ("1",),
    "sigma churn": ("0",),
    "sigma tmin": ("0",),
    "sigma tmax": ("0", "inf"),
    "sigma noise": ("1",),
    "schedule max sigma": ("0",),
    "schedule min sigma": ("0",),
    "schedule rho": ("0",),
    "beta schedule alpha": ("0.6",),
    "beta schedule beta": ("0.6",),
    "discard penultimate sigma": ("false",),
    "sgm noise multiplier": ("false",),
    "ngms": ("0",),
    "ngms all steps": ("false",),
    "skip early cfg": ("0",),
    "emphasis": ("original",),
    "noise schedule": ("default",),
    "noise multiplier": ("1",),
    "extra noise": ("0",),
    "conditional mask weight": ("1",),
    "mask weight": ("1",),
    "mask mode": ("inpaint masked",),
    "masked content": ("original",),
    "inpaint area": ("whole picture", "only masked"),
    "downcast alphas cumprod": ("false",),
    "pad conds": ("false",),
    "pad conds v0": ("false",),
    "old prompt editing timelines": ("false",),
    "token merging ratio": ("0",),
    "token merging ratio hr": ("0",),
    "tome": ("0",),
    "todo": ("0",),
    "tiling": ("false", "none"),
    "face restoration": ("none", "false"),
    "vae": ("automatic", "none", "default", "default (model)"),
    "vae encoder": ("full",),
    "vae decoder": ("full",),
    "fp8 weight": ("disable",),
    "diffusion in low bits": ("automatic",),
    "module 1": ("built in",),
    "hires module 1": ("built in", "use same choices"),
    "hires sampler": ("use same sampler",),
    "hires schedule type": ("use same scheduler",),
    "hires checkpoint": ("use same checkpoint",),
    "hires prompt": ("",),
    "hires negative prompt": ("",),
    "hires cfg scale": ("0",),
    "unipc variant": ("bh1",),
    "unipc skip type": ("time uniform",),
    "unipc order": ("3",),
    "unipc lower order final": ("true",),
    "cfg end": ("1",),
    "cfg true": ("0",),
    "cfg adaptive": ("0.5",),
    "full quality": ("true",),
    "sampler type": ("epsilon", "default"),
    "sampler beta schedule": ("default",),
    "parser": ("native", "full parser"),
    "hypernet strength": ("0",),
}
"""The default values of labels in those programs. With them, a label does not change the image."""

_GROUPS = (
    *(("adetailer*", "ADetailer"), ("detailer*", "Detailer"), ("controlnet*", "ControlNet")),
    *(("control *", "Control"), ("rp *", "Regional Prompter"), ("addnet*", "AddNet"), ("freeu*", "FreeU")),
    *(("dynthres*", "Dynamic thresholding"), ("dynamic thresholding*", "Dynamic thresholding")),
    *(("refiner*", "Refiner"), ("ip adapter*", "IP Adapter"), ("soft inpainting*", "Soft inpainting")),
    *(("lora *", "Lora hashes"), ("hypernet*", "Hypernet"), ("variation *", "Variation seed")),
    *(("ultimate sd upscale*", "Ultimate SD upscale"), ("usdupscaler*", "Ultimate SD upscale")),
    *(
        ("sd upscale*", "SD upscale"),
        ("postprocess*", "Postprocess"),
        ("tiled diffusion*", "Tiled Diffusion"),
    ),
    *(("kohya hrfix*", "Kohya HRFix"), ("latent modifier*", "Latent Modifier"), ("sag *", "SAG")),
    *(("pagi *", "PAG"), ("stylealign*", "StyleAlign"), ("animatediff*", "AnimateDiff")),
    *(("hidiffusion*", "HiDiffusion"), ("hypertile*", "Hypertile"), ("cutoff *", "Cutoff")),
    *(("negpip*", "NegPiP"), ("resize *", "Resize"), ("latent *", "Latent corrections")),
)
_SWITCH = re.compile(r"(.+) (enabled|active)")


def plain(text: str) -> str:
    """A label or a value in lower case, with spaces for hyphens and underscores."""
    return " ".join(re.sub(r"[_-]", " ", text.casefold()).split())


def has_no_effect(label: str, value: str) -> bool:
    """Whether a setting of another program leaves the image as sdrt makes it. Unknown settings count as having one."""
    name = plain(label)
    if any(fnmatchcase(name, pattern) for pattern in _WITHOUT_EFFECT):
        return True
    return any(_same(value, neutral) for neutral in _NEUTRAL.get(name, ()))


def _same(value: str, neutral: str) -> bool:
    try:
        return float(value) == float(neutral)
    except ValueError:
        return plain(value) == plain(neutral)


def group_of(label: str) -> str:
    """The name for all labels that an extension writes, or the label itself."""
    name = plain(label)
    return next((group for pattern, group in _GROUPS if fnmatchcase(name, pattern)), label)


def is_off(label: str, texts: Mapping[str, str]) -> bool:
    """Whether `texts` say that the extension which wrote `label` did nothing, such as "RP Active: False"."""
    name = plain(label)
    for other, value in texts.items():
        switch = _SWITCH.fullmatch(plain(other))
        if switch and plain(value) in ("false", "0") and name.startswith(f"{switch[1]} "):
            return True
    return False
