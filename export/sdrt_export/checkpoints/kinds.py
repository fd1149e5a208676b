"""The kinds of single-file checkpoints: their parts, and the config values that the tensors do not show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sdrt.families import scaling_factors
from sdrt_export.architectures import ARCHITECTURES
from sdrt_export.checkpoints.derived.shapes import Shapes

__all__ = ["KINDS", "Kind", "TextPart", "kind_of_unet"]

_END, _ZERO = "<|endoftext|>", "!"


@dataclass(frozen=True, kw_only=True)
class TextPart:
    """A text encoder.

    Attributes:
        part, tokenizer: its folder, and its tokenizer's folder, in diffusers' layout.
        prefixes: the prefixes of its tensors' names in files.
        projected: whether the model reads the projected pooled output.
        drops_last: whether the model leaves out the 24th layer.
        pad: the token that pads short texts.
    """

    part: str = "text_encoder"
    tokenizer: str = "tokenizer"
    prefixes: tuple[str, ...]
    projected: bool = False
    drops_last: bool = False
    pad: str = _END

    @property
    def class_name(self) -> str:
        """transformers' class."""
        return "CLIPTextModelWithProjection" if self.projected else "CLIPTextModel"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of checkpoint.

    Attributes:
        title: its name in messages.
        pipeline: diffusers' pipeline class, which decides the family.
        text: the text encoders.
        sample_size: the default size in latents. `v_sample_size` is that of models that predict v.
        scaling_factor: the VAE's scaling factor.
        prediction: what the U-Net predicts by default. None if the file or the user must say it.
        scheduler: the content of `scheduler_config.json`, without `prediction_type`. `v_scheduler` is that of models
            that predict v.
        sizes: how many numbers the U-Net embeds beside the pooled text.
        index: further entries of `model_index.json`.
    """

    title: str
    pipeline: str
    text: tuple[TextPart, ...]
    sample_size: int
    v_sample_size: int | None = None
    scaling_factor: float
    prediction: str | None = "epsilon"
    scheduler: Mapping[str, Any]
    v_scheduler: Mapping[str, Any] | None = None
    low_res_scheduler: Mapping[str, Any] | None = None
    sizes: int = 0
    index: Mapping[str, Any] = field(default_factory=dict)


_PNDM = ARCHITECTURES["sd15"]["scheduler"]
_DDIM = {**_PNDM, "_class_name": "DDIMScheduler"}
_EULER = {
    **_PNDM,
    "_class_name": "EulerDiscreteScheduler",
    "interpolation_type": "linear",
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}
_UPSCALER = ARCHITECTURES["x4-upscaler"]

_CLIP_L = TextPart(prefixes=("cond_stage_model.transformer.",))
# The second prefix is that of Stability's newer program, the third that of files which ComfyUI has written.
_OPEN_CLIP_H = TextPart(
    prefixes=("cond_stage_model.model.", "conditioner.embedders.0.model.", "cond_stage_model.transformer."),
    drops_last=True,
    pad=_ZERO,
)
_OPEN_CLIP_G = TextPart(
    part="text_encoder_2", tokenizer="tokenizer_2", prefixes=(), projected=True, pad=_ZERO
)


def _big_g(embedder: int) -> TextPart:
    root = f"conditioner.embedders.{embedder}."
    return TextPart(**{**vars(_OPEN_CLIP_G), "prefixes": (f"{root}model.", f"{root}transformer.")})


KINDS: Mapping[str, Kind] = {
    "sd1": Kind(
        title="Stable Diffusion 1",
        pipeline="StableDiffusionPipeline",
        text=(_CLIP_L,),
        sample_size=64,
        scaling_factor=scaling_factors.SD,
        scheduler=_PNDM,
    ),
    "sd2": Kind(
        title="Stable Diffusion 2",
        pipeline="StableDiffusionPipeline",
        text=(_OPEN_CLIP_H,),
        sample_size=64,
        v_sample_size=96,
        scaling_factor=scaling_factors.SD,
        prediction=None,
        scheduler=_PNDM,
        v_scheduler=_DDIM,
    ),
    "x4-upscaler": Kind(
        title="Stable Diffusion x4 upscaler",
        pipeline="StableDiffusionUpscalePipeline",
        text=(_OPEN_CLIP_H,),
        sample_size=128,
        scaling_factor=scaling_factors.X4_UPSCALER,
        prediction="v_prediction",
        scheduler=_UPSCALER["scheduler"],
        low_res_scheduler=_UPSCALER["low_res_scheduler"],
        index={"max_noise_level": 350},
    ),
    "sdxl": Kind(
        title="SDXL",
        pipeline="StableDiffusionXLPipeline",
        text=(TextPart(prefixes=("conditioner.embedders.0.transformer.",)), _big_g(1)),
        sample_size=128,
        scaling_factor=scaling_factors.SDXL,
        scheduler=_EULER,
        sizes=6,
        index={"force_zeros_for_empty_prompt": True},
    ),
    "sdxl-refiner": Kind(
        title="SDXL refiner",
        pipeline="StableDiffusionXLImg2ImgPipeline",
        text=(_big_g(0),),
        sample_size=128,
        scaling_factor=scaling_factors.SDXL,
        scheduler=_EULER,
        sizes=5,
        index={
            "force_zeros_for_empty_prompt": False,
            "requires_aesthetics_score": True,
            "text_encoder": [None, None],
            "tokenizer": [None, None],
        },
    ),
}

# The width of the texts that SDXL's refiner reads: OpenCLIP's bigG alone.
_REFINER_WIDTH = 1280


def kind_of_unet(shapes: Shapes, names: Mapping[str, Any]) -> Kind:
    """The kind of a checkpoint, from the shapes of its U-Net and the names of all its tensors."""
    if "label_emb.weight" in shapes:
        return KINDS["x4-upscaler"]
    if "label_emb.0.0.weight" in shapes:
        embedders = [any(name.startswith(f"conditioner.embedders.{i}.") for name in names) for i in (0, 1)]
        is_refiner = embedders == [True, False] and any(
            name.startswith("conditioner.embedders.0.model.") for name in names
        )
        return KINDS["sdxl-refiner" if is_refiner or (not any(embedders) and _is_refiner(shapes)) else "sdxl"]
    open_clip = any(name.startswith("cond_stage_model.model.") for name in names)
    return KINDS["sd2" if open_clip or _is_linear(shapes) else "sd1"]


def _transformers(shapes: Shapes) -> list[str]:
    """The places where a U-Net's first transformers may be."""
    places = [*(f"input_blocks.{index}.1" for index in range(1, 16)), "middle_block.1"]
    return [place for place in places if f"{place}.proj_in.weight" in shapes]


def _is_refiner(shapes: Shapes) -> bool:
    names = [f"{place}.transformer_blocks.0.attn2.to_k.weight" for place in _transformers(shapes)]
    return any(shapes.of(name, 2)[1] == _REFINER_WIDTH for name in names if name in shapes)


def _is_linear(shapes: Shapes) -> bool:
    """Stable Diffusion 2 begins its transformers with a matrix, 1 with a 1x1 convolution."""
    return any(shapes.axes(f"{place}.proj_in.weight") == 2 for place in _transformers(shapes)[:1])
