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
from sdrt_export import channels_last
from sdrt_export.fuse import skip_norm
from sdrt_export.preview import fit_preview
from sdrt_export.targets import OPTIMUM, Target

__all__ = ["COMPONENTS", "Component"]

Inputs = dict[str, Tensor]
ADDED = "added_token_embeddings"
EOS_INDEX = "eos_index"
Axes = dict[int, str]


@dataclass(frozen=True, kw_only=True)
class Component:
    """How one component is loaded, traced and checked.

    ``axes`` names the dynamic axes of each input; a model has those inputs that its examples have. ``examples`` gives
    the inputs of one of three sizes: 0 is traced; 1, which is odd, and 2 are checked (0 and 2 where a graph cannot
    take odd sizes). ``forward`` makes the traced forward for a target; ``reference`` runs the untouched torch module.
    ``outputs`` are the graph's output names, in the order both return them. ``check`` raises UnsupportedModelError
    for a config that ``forward`` does not cover; ``blocks`` are what a target with ``channels_last`` walks over.
    ``about`` gives what else the manifest says of the model. ``defaults`` are the values of inputs that a caller may
    leave out, ``hosted`` those that only targets with ``host_indices`` take.
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
    hosted: tuple[str, ...] = ()
    blocks: Callable[[Any], nn.Module] | None = None

    def inputs(self, model: Any, size: int, target: Target) -> Inputs:
        """The examples of one size, those inputs that ``target`` takes."""
        given = self.examples(model, size)
        return {
            name: value for name, value in given.items() if target.host_indices or name not in self.hosted
        }

    def check_for(self, model: Any, target: Target) -> None:
        """Raise UnsupportedModelError for a config that ``target``'s forward does not cover."""
        self.check(model)
        if target.channels_last and self.blocks is not None:
            channels_last.check(self.blocks(model), self.name)


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
    return {
        "input_ids": ids,
        ADDED: _noise(max(1, added), model.config.hidden_size, seed=size),
        EOS_INDEX: _eos_index(model, ids),
    }


def _embedded(model: CLIPTextModel, input_ids: Tensor, added: Tensor) -> Tensor:
    """Embeddings of tokens; those from the vocabulary's size on are rows of ``added``."""
    embeddings = model.text_model.embeddings
    size = embeddings.token_embedding.num_embeddings
    known = embeddings.token_embedding(input_ids.clamp(max=size - 1))
    extra = nn.functional.embedding((input_ids - size).clamp(min=0), added.to(known.dtype))
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


def _text_results(model: CLIPTextModel, pooled: Tensor, hidden: list[Tensor], last: Tensor) -> list[Tensor]:
    norm = model.text_model.final_layer_norm
    skipped = [norm(hidden[-1 - k]) for k in range(1, len(hidden) - 1)]
    return [last, pooled, *hidden, *skipped]


def _at(last: Tensor, index: Tensor, positions: Tensor) -> Tensor:
    """``last[row, index[row]]`` as a product with ones and zeros, which no provider hands to the CPU."""
    hits = (positions == index.unsqueeze(1)).to(last.dtype)
    return torch.matmul(hits.unsqueeze(1), last).squeeze(1)


def _text_forward(target: Target) -> Callable[..., Any]:
    def forward(
        model: CLIPTextModel,
        input_ids: Tensor,
        added_token_embeddings: Tensor,
        eos_index: Tensor | None = None,
    ) -> list[Tensor]:
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
        if eos_index is None:
            rows = torch.arange(input_ids.shape[0], device=input_ids.device)
            pooled = normed[rows, _eos_index(model, input_ids)]
        else:
            pooled = _at(normed, eos_index, text.embeddings.position_ids[:, : input_ids.shape[1]])
        return [result.float() for result in _text_results(model, pooled, hidden, normed)]

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
                f"unet: {key}={model.config[key]!r} is not supported; export with {OPTIMUM}"
            )


def _unet_forward(target: Target) -> Callable[..., Any]:
    walk = channels_last.unet if target.channels_last else _unet_blocks

    def forward(
        model: UNet2DConditionModel,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        dtype = model.conv_in.weight.dtype
        sample, context = sample.to(dtype), encoder_hidden_states.to(dtype)
        x = 2 * sample - 1.0 if model.config.center_input_sample else sample
        temb = model.time_embedding(model.get_time_embed(sample=x, timestep=timestep))
        if class_labels is not None:
            temb = temb + model.class_embedding(class_labels)
        temb = model.time_embed_act(temb) if model.time_embed_act is not None else temb
        return walk(model, x, temb, context).float()

    return forward


def _unet_blocks(model: UNet2DConditionModel, x: Tensor, temb: Tensor, context: Tensor) -> Tensor:
    """diffusers' blocks one after the other; those that fuse have other forwards by now."""
    x = model.conv_in(x)
    skips = [x]
    for block in model.down_blocks:
        x, states = block(x, temb, **_context(block, context))
        skips.extend(states)
    if model.mid_block is not None:
        x = model.mid_block(x, temb, **_context(model.mid_block, context))
    for block in model.up_blocks:
        count = len(block.resnets)
        mine, skips = tuple(skips[-count:]), skips[:-count]
        # diffusers decides by the size whether to pass this; always passing it keeps one graph for all sizes
        size = skips[-1].shape[2:] if skips else None
        x = block(x, mine, temb, upsample_size=size, **_context(block, context))
    if model.conv_norm_out is not None:
        x = model.conv_act(model.conv_norm_out(x))
    out: Tensor = model.conv_out(x)
    return out


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


def _encoder_forward(target: Target) -> Callable[..., Any]:
    walk = channels_last.encode if target.channels_last else _encode
    return lambda model, sample: walk(model, sample.to(model.encoder.conv_in.weight.dtype)).float()


def _encode(model: AutoencoderKL, sample: Tensor) -> Tensor:
    moments: Tensor = model.encoder(sample)
    return model.quant_conv(moments) if model.quant_conv is not None else moments


def _decoder_forward(target: Target) -> Callable[..., Any]:
    walk = channels_last.decode if target.channels_last else _decode
    return lambda model, latent_sample: walk(
        model, latent_sample.to(model.decoder.conv_in.weight.dtype)
    ).float()


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
        axes={"input_ids": {0: "batch", 1: "sequence"}, ADDED: {0: "added"}, EOS_INDEX: {0: "batch"}},
        examples=_text_examples,
        outputs=_text_outputs,
        forward=_text_forward,
        reference=_text_reference,
        defaults=lambda model: {ADDED: torch.zeros(1, model.config.hidden_size)},
        hosted=(EOS_INDEX,),
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
        blocks=lambda model: model,
    ),
    "vae_encoder": Component(
        name="vae_encoder",
        checkpoint="vae",
        library="diffusers",
        model_class=AutoencoderKL,
        axes={"sample": {0: "batch", 2: "height", 3: "width"}},
        examples=_encoder_examples,
        outputs=lambda model: ["latent_parameters"],
        forward=_encoder_forward,
        reference=_encoder_reference,
        blocks=lambda model: model.encoder,
    ),
    "vae_decoder": Component(
        name="vae_decoder",
        checkpoint="vae",
        library="diffusers",
        model_class=AutoencoderKL,
        axes={"latent_sample": {0: "batch", 2: "height", 3: "width"}},
        examples=_decoder_examples,
        outputs=lambda model: ["sample"],
        forward=_decoder_forward,
        reference=_decoder_reference,
        blocks=lambda model: model.decoder,
        about=lambda model: {"preview": fit_preview(model)},
    ),
}
