"""The four components of a Stable Diffusion 1.x or 2.x pipeline: their contract, example inputs and forwards.

Names of inputs and outputs are those of optimum's ONNX configs, so that folders are interchangeable; what we add
(``last_hidden_state.skip_k``) is extra outputs that others ignore.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from sdrt.errors import UnsupportedModelError
from sdrt_export.fuse import skip_norm
from sdrt_export.preview import fit_preview
from sdrt_export.targets import Target

__all__ = ["COMPONENTS", "Component"]

Inputs = dict[str, Tensor]
ADDED = "added_token_embeddings"
Axes = dict[int, str]


@dataclass(frozen=True, kw_only=True)
class Component:
    """How one component is loaded, traced and checked.

    ``axes`` names the dynamic axes of each input; a model has those inputs that its examples have. ``examples`` gives
    the inputs of one of three sizes: 0 is traced; 1, which is odd, and 2 are checked (0 and 2 where a graph cannot
    take odd sizes). ``forward`` makes the traced forward for a target; ``reference`` runs the untouched torch module.
    ``outputs`` are the graph's output names, in the order both return them. ``check`` raises UnsupportedModelError
    for a config that ``forward`` does not cover. ``about`` gives what else the manifest says of the model. ``defaults``
    are the values of inputs that a caller may leave out.
    """

    name: str
    checkpoint: str
    library: str
    model_class: type[nn.Module]
    axes: Mapping[str, Axes]
    examples: Callable[[Any, int], Inputs]
    outputs: Callable[[Any], list[str]]
    forward: Callable[[Target], Callable[..., Any]]
    reference: Callable[[Any, Inputs], list[Tensor]]
    check: Callable[[Any], None] = lambda model: None
    about: Callable[[Any], dict[str, Any]] = lambda model: {}
    defaults: Callable[[Any], Inputs] = lambda model: {}


def _noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- text encoder -------------------------------------------------------------------------------------------


def _text_examples(model: CLIPTextModel, size: int) -> Inputs:
    whole = model.config.max_position_embeddings
    batch, length = [(2, whole), (1, 9), (2, whole)][size]
    # Tokens of a caller's own in one size alone, as graphs of other exporters have none.
    added = 3 if size == 1 else 0
    ids = torch.randint(
        0, model.config.vocab_size + added, (batch, length), generator=torch.Generator().manual_seed(size)
    )
    return {"input_ids": ids, ADDED: _noise(max(1, added), model.config.hidden_size, seed=size)}


def _embedded(model: CLIPTextModel, input_ids: Tensor, added: Tensor) -> Tensor:
    """Embeddings of tokens; those from the vocabulary's size on are rows of ``added``."""
    embeddings = model.text_model.embeddings
    size = embeddings.token_embedding.num_embeddings
    known = embeddings.token_embedding(input_ids.clamp(max=size - 1))
    extra = nn.functional.embedding((input_ids - size).clamp(min=0), added)
    tokens = torch.where((input_ids >= size).unsqueeze(-1), extra, known)
    placed: Tensor = tokens + embeddings.position_embedding(embeddings.position_ids[:, : input_ids.shape[1]])
    return placed


def _text_outputs(model: CLIPTextModel) -> list[str]:
    layers = model.config.num_hidden_layers
    hidden = [f"hidden_states.{i}" for i in range(layers + 1)]
    return [
        "last_hidden_state",
        "pooler_output",
        *hidden,
        *(f"last_hidden_state.skip_{k}" for k in range(1, layers)),
    ]


def _eos_index(model: CLIPTextModel, input_ids: Tensor) -> Tensor:
    """``[batch]`` position of the token whose hidden state is the pooled output."""
    eos = model.config.eos_token_id
    # Configs older than transformers 4.31 say 2, which never was CLIP's end token: there it is the largest id, but for
    # a caller's own.
    own = input_ids >= model.config.vocab_size
    hits = input_ids.masked_fill(own, 0) if eos == 2 else (input_ids == eos)
    return hits.to(torch.int32).argmax(dim=-1)


def _text_results(
    model: CLIPTextModel, input_ids: Tensor, hidden: list[Tensor], last: Tensor
) -> list[Tensor]:
    norm = model.text_model.final_layer_norm
    rows = torch.arange(input_ids.shape[0], device=input_ids.device)
    pooled = last[rows, _eos_index(model, input_ids)]
    skipped = [norm(hidden[-1 - k]) for k in range(1, len(hidden) - 1)]
    return [last, pooled, *hidden, *skipped]


def _text_forward(target: Target) -> Callable[..., Any]:
    def forward(model: CLIPTextModel, input_ids: Tensor, added_token_embeddings: Tensor) -> list[Tensor]:
        text = model.text_model
        h = _embedded(model, input_ids, added_token_embeddings)
        layers = list(text.encoder.layers)
        normed = layers[0].layer_norm1(h)
        hidden = [h]
        for layer, following in zip(
            layers, [*(n.layer_norm1 for n in layers[1:]), text.final_layer_norm], strict=True
        ):
            out = layer.self_attn(normed)
            normed, h = skip_norm(out, h, layer.self_attn.out_proj.bias, layer.layer_norm2, target)
            out = nn.functional.linear(layer.mlp.activation_fn(layer.mlp.fc1(normed)), layer.mlp.fc2.weight)
            normed, h = skip_norm(out, h, layer.mlp.fc2.bias, following, target)
            hidden.append(h)
        return _text_results(model, input_ids, hidden, normed)

    return forward


def _text_reference(model: CLIPTextModel, inputs: Inputs) -> list[Tensor]:
    table = model.get_input_embeddings()
    longer = torch.cat([table.weight, inputs[ADDED]])
    longer_table = nn.Embedding(*longer.shape)
    longer_table.weight = nn.Parameter(longer, requires_grad=False)
    model.set_input_embeddings(longer_table)
    try:
        out = model(input_ids=inputs["input_ids"], output_hidden_states=True)
    finally:
        model.set_input_embeddings(table)
    norm, hidden = model.text_model.final_layer_norm, list(out.hidden_states)
    skipped = [norm(hidden[-1 - k]) for k in range(1, len(hidden) - 1)]
    pooled = out.pooler_output
    if (inputs["input_ids"] >= model.config.vocab_size).any():
        # transformers takes the largest id for the end, of old configs, and a caller's own are larger.
        rows = torch.arange(len(inputs["input_ids"]))
        pooled = out.last_hidden_state[rows, _eos_index(model, inputs["input_ids"])]
    return [out.last_hidden_state, pooled, *hidden, *skipped]


# --- U-Net --------------------------------------------------------------------------------------------------


def _unet_examples(model: UNet2DConditionModel, size: int) -> Inputs:
    batch, height, width, length = [(2, 16, 24, 77), (1, 9, 11, 5), (2, 8, 16, 77)][size]
    return {
        "sample": _noise(batch, model.config.in_channels, height, width, seed=size),
        "timestep": torch.tensor([451.0, 7.0, 7.0][size]),
        "encoder_hidden_states": _noise(batch, length, model.config.cross_attention_dim, seed=size + 10),
        **_label_examples(model, batch),
    }


def _label_examples(model: UNet2DConditionModel, batch: int) -> Inputs:
    """The noise level of each small picture, where the U-Net is told (diffusers' x4 upscaler)."""
    if model.config.num_class_embeds is None:
        return {}
    return {"class_labels": torch.arange(batch) % model.config.num_class_embeds}


def _check_unet(model: UNet2DConditionModel) -> None:
    for key in (
        "class_embed_type",
        "addition_embed_type",
        "encoder_hid_dim_type",
        "time_cond_proj_dim",
        "class_embeddings_concat",
    ):
        if model.config.get(key):
            raise UnsupportedModelError(
                f"unet: {key}={model.config[key]!r} is not supported; export with --exporter optimum"
            )


def _unet_forward(target: Target) -> Callable[..., Any]:
    def forward(
        model: UNet2DConditionModel,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        x = 2 * sample - 1.0 if model.config.center_input_sample else sample
        temb = model.time_embedding(model.get_time_embed(sample=x, timestep=timestep))
        if class_labels is not None:
            temb = temb + model.class_embedding(class_labels)
        temb = model.time_embed_act(temb) if model.time_embed_act is not None else temb
        x = model.conv_in(x)
        skips = [x]
        for block in model.down_blocks:
            x, states = block(x, temb, **_context(block, encoder_hidden_states))
            skips.extend(states)
        if model.mid_block is not None:
            x = model.mid_block(x, temb, **_context(model.mid_block, encoder_hidden_states))
        for block in model.up_blocks:
            count = len(block.resnets)
            mine, skips = tuple(skips[-count:]), skips[:-count]
            # diffusers decides by the size whether to pass this; always passing it keeps one graph for all sizes
            size = skips[-1].shape[2:] if skips else None
            x = block(x, mine, temb, upsample_size=size, **_context(block, encoder_hidden_states))
        if model.conv_norm_out is not None:
            x = model.conv_act(model.conv_norm_out(x))
        out: Tensor = model.conv_out(x)
        return out

    return forward


def _context(block: nn.Module, encoder_hidden_states: Tensor) -> dict[str, Tensor]:
    if getattr(block, "has_cross_attention", False):
        return {"encoder_hidden_states": encoder_hidden_states}
    return {}


def _unet_reference(model: UNet2DConditionModel, inputs: Inputs) -> list[Tensor]:
    return [model(**inputs, return_dict=False)[0]]


# --- VAE ----------------------------------------------------------------------------------------------------


def _vae_scale(model: AutoencoderKL) -> int:
    return int(2 ** (len(model.config.block_out_channels) - 1))


def _encoder_examples(model: AutoencoderKL, size: int) -> Inputs:
    batch, height, width = [(2, 6, 4), (1, 3, 5), (2, 4, 3)][size]
    scale = _vae_scale(model)
    return {"sample": _noise(batch, model.config.in_channels, height * scale, width * scale, seed=size)}


def _decoder_examples(model: AutoencoderKL, size: int) -> Inputs:
    batch, height, width = [(2, 8, 6), (1, 5, 7), (2, 6, 4)][size]
    return {"latent_sample": _noise(batch, model.config.latent_channels, height, width, seed=size)}


def _encode(model: AutoencoderKL, sample: Tensor) -> Tensor:
    moments: Tensor = model.encoder(sample)
    return model.quant_conv(moments) if model.quant_conv is not None else moments


def _decode(model: AutoencoderKL, latent_sample: Tensor) -> Tensor:
    z = model.post_quant_conv(latent_sample) if model.post_quant_conv is not None else latent_sample
    picture: Tensor = model.decoder(z)
    return picture


def _encoder_reference(model: AutoencoderKL, inputs: Inputs) -> list[Tensor]:
    return [model.encode(inputs["sample"]).latent_dist.parameters]


def _decoder_reference(model: AutoencoderKL, inputs: Inputs) -> list[Tensor]:
    return [model.decode(inputs["latent_sample"], return_dict=False)[0]]


COMPONENTS: Mapping[str, Component] = {
    "text_encoder": Component(
        name="text_encoder",
        checkpoint="text_encoder",
        library="transformers",
        model_class=CLIPTextModel,
        axes={"input_ids": {0: "batch", 1: "sequence"}, ADDED: {0: "added"}},
        examples=_text_examples,
        outputs=_text_outputs,
        forward=_text_forward,
        reference=_text_reference,
        defaults=lambda model: {ADDED: torch.zeros(1, model.config.hidden_size)},
    ),
    "unet": Component(
        name="unet",
        checkpoint="unet",
        library="diffusers",
        model_class=UNet2DConditionModel,
        axes={
            "sample": {0: "batch", 2: "height", 3: "width"},
            "timestep": {},
            "encoder_hidden_states": {0: "batch", 1: "sequence"},
            "class_labels": {0: "batch"},
        },
        examples=_unet_examples,
        outputs=lambda model: ["out_sample"],
        forward=_unet_forward,
        reference=_unet_reference,
        check=_check_unet,
    ),
    "vae_encoder": Component(
        name="vae_encoder",
        checkpoint="vae",
        library="diffusers",
        model_class=AutoencoderKL,
        axes={"sample": {0: "batch", 2: "height", 3: "width"}},
        examples=_encoder_examples,
        outputs=lambda model: ["latent_parameters"],
        forward=lambda target: _encode,
        reference=_encoder_reference,
    ),
    "vae_decoder": Component(
        name="vae_decoder",
        checkpoint="vae",
        library="diffusers",
        model_class=AutoencoderKL,
        axes={"latent_sample": {0: "batch", 2: "height", 3: "width"}},
        examples=_decoder_examples,
        outputs=lambda model: ["sample"],
        forward=lambda target: _decode,
        reference=_decoder_reference,
        about=lambda model: {"preview": fit_preview(model)},
    ),
}
