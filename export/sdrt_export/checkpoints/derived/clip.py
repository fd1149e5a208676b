"""The config of CLIP's text encoder in transformers' or OpenCLIP's names, from the shapes of its tensors."""

from __future__ import annotations

from typing import Any

from sdrt_export.checkpoints.clip_vocabulary import VOCABULARY
from sdrt_export.checkpoints.derived.shapes import Shapes, heads_of

__all__ = ["derived_clip", "is_open_clip", "projection_of"]

# The widths of OpenCLIP's encoders, whatever names the tensors have: Stable Diffusion 2's and SDXL's second.
_OPEN_CLIP_WIDTHS = (1024, 1280)
# The last layer of Stable Diffusion 2's encoder, which nothing reads.
_UNREAD = 23


def is_open_clip(shapes: Shapes) -> bool:
    """Whether the names are OpenCLIP's."""
    return "token_embedding.weight" in shapes


def projection_of(shapes: Shapes) -> int | None:
    """The width of the projected pooled output. None without a projection."""
    if shapes.axes("text_projection") == 2:
        return shapes.of("text_projection", 2)[1]
    name = "text_projection.weight"
    return shapes.of(name, 2)[0] if name in shapes else None


def derived_clip(shapes: Shapes, *, projected: bool, drops_last: bool) -> dict[str, Any]:
    """The config, as transformers has it.

    Args:
        shapes: of the tensors, without their prefix.
        projected: whether the model reads the projected pooled output.
        drops_last: whether the model leaves out the 24th layer, if there is one.

    Raises:
        UnsupportedModelError: a tensor is missing.
    """
    open_clip = is_open_clip(shapes)
    root = "" if open_clip or "text_model.embeddings.token_embedding.weight" not in shapes else "text_model."
    names = _OPEN_CLIP if open_clip else _TRANSFORMERS
    vocabulary, width = shapes.of(root + names["tokens"], 2)
    layers = shapes.counted(root + names["layer"])
    if not layers:
        raise shapes.refused("has no layers", "at least one")
    projection = projection_of(shapes)
    if projected and projection is None:
        raise shapes.refused(
            "lacks text_projection", "a text encoder with a projection, such as OpenCLIP's bigG"
        )
    is_gelu = open_clip or width in _OPEN_CLIP_WIDTHS
    return {
        "attention_dropout": 0.0,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes.of((root + names["inner"]).format(0), 2)[0],
        "num_hidden_layers": _UNREAD if drops_last and layers == _UNREAD + 1 else layers,
        "num_attention_heads": heads_of(shapes, width),
        "max_position_embeddings": shapes.of(root + names["positions"], 2)[0],
        "hidden_act": "gelu" if is_gelu else "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": projection or width,
        "bos_token_id": VOCABULARY - 2,
        "eos_token_id": min(vocabulary, VOCABULARY) - 1,
        "pad_token_id": 1,
        "model_type": "clip_text_model",
    }


_OPEN_CLIP = {
    "tokens": "token_embedding.weight",
    "positions": "positional_embedding",
    "layer": "transformer.resblocks.{}.ln_1.weight",
    "inner": "transformer.resblocks.{}.mlp.c_fc.weight",
}
_TRANSFORMERS = {
    "tokens": "embeddings.token_embedding.weight",
    "positions": "embeddings.position_embedding.weight",
    "layer": "encoder.layers.{}.layer_norm1.weight",
    "inner": "encoder.layers.{}.mlp.fc1.weight",
}
