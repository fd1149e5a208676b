"""CLIP's text encoder: transformers' names, with or without `text_model.`, and OpenCLIP's."""

from __future__ import annotations

from sdrt_export.checkpoints.keys.row import TRANSPOSED, Row, inside, third

__all__ = ["open_clip_rows", "transformers_rows"]

_TEXT = "text_model"
_BLOCK = [
    Row("layer_norm1", "ln_1"),
    *(
        Row(f"self_attn.{name}_proj.{kind}", f"attn.in_proj_{kind}", third(index))
        for kind in ("weight", "bias")
        for index, name in enumerate("qkv")
    ),
    Row("self_attn.out_proj", "attn.out_proj"),
    Row("layer_norm2", "ln_2"),
    Row("mlp.fc1", "mlp.c_fc"),
    Row("mlp.fc2", "mlp.c_proj"),
]


def transformers_rows(layers: int, *, projected: bool) -> list[Row]:
    """The table for transformers' names of an encoder with `layers` layers. Some programs leave out `text_model.`"""
    modules = ["embeddings.token_embedding", "embeddings.position_embedding", "final_layer_norm"]
    modules += [f"encoder.layers.{index}" for index in range(layers)]
    rows = [Row(f"{_TEXT}.{module}", of) for module in modules for of in (f"{_TEXT}.{module}", module)]
    return rows + ([Row("text_projection", "text_projection")] if projected else [])


def open_clip_rows(layers: int, *, projected: bool) -> list[Row]:
    """The table for OpenCLIP's names of an encoder with `layers` layers. Further layers are left over."""
    rows = [
        Row(f"{_TEXT}.embeddings.token_embedding", "token_embedding"),
        Row(f"{_TEXT}.embeddings.position_embedding.weight", "positional_embedding"),
        Row(f"{_TEXT}.final_layer_norm", "ln_final"),
    ]
    for index in range(layers):
        rows += inside(f"{_TEXT}.encoder.layers.{index}", f"transformer.resblocks.{index}", _BLOCK)
    if projected:
        # OpenCLIP has a parameter that multiplies from the right, or since 2.24 a Linear, as transformers has.
        rows += [
            Row("text_projection.weight", "text_projection", TRANSPOSED),
            Row("text_projection.weight", "text_projection.weight"),
        ]
    return rows
