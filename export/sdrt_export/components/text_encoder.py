"""CLIP's text encoder, with all hidden states, and with embeddings that a caller adds to the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from sdrt_export.components.component import Component, Inputs, noise
from sdrt_export.fuse import skip_norm
from sdrt_export.targets import Target

__all__ = ["TEXT_ENCODER"]

ADDED = "added_token_embeddings"
EOS_INDEX = "eos_index"


def _examples(model: CLIPTextModel, size: int) -> Inputs:
    whole = model.config.max_position_embeddings
    batch, length = [(2, whole), (1, 9), (2, whole)][size]
    # Only size 1 has added tokens, because other exporters' graphs do not support them.
    added = 3 if size == 1 else 0
    ids = torch.randint(
        0, model.config.vocab_size + added, (batch, length), generator=torch.Generator().manual_seed(size)
    )
    return {
        "input_ids": ids,
        ADDED: noise(max(1, added), model.config.hidden_size, seed=size),
        EOS_INDEX: _eos_index(model, ids),
    }


def _embedded(model: CLIPTextModel, input_ids: Tensor, added: Tensor) -> Tensor:
    """Embeddings of tokens. Ids from the vocabulary's size on are rows of ``added``."""
    embeddings = model.text_model.embeddings
    size = embeddings.token_embedding.num_embeddings
    known = embeddings.token_embedding(input_ids.clamp(max=size - 1))
    extra = nn.functional.embedding((input_ids - size).clamp(min=0), added.to(known.dtype))
    tokens = torch.where((input_ids >= size).unsqueeze(-1), extra, known)
    placed: Tensor = tokens + embeddings.position_embedding(embeddings.position_ids[:, : input_ids.shape[1]])
    return placed


def _outputs(model: CLIPTextModel) -> list[str]:
    layers = model.config.num_hidden_layers
    hidden = [f"hidden_states.{i}" for i in range(layers + 1)]
    return [
        "last_hidden_state",
        "pooler_output",
        *hidden,
        *(f"last_hidden_state.skip_{k}" for k in range(1, layers)),
    ]


def _eos_index(model: CLIPTextModel, input_ids: Tensor) -> Tensor:
    """The position ``[batch]`` of the token whose hidden state is the pooled output."""
    eos = model.config.eos_token_id
    # Configs from before transformers 4.31 say 2, which never was CLIP's end token. With them it is the largest id,
    # except for added tokens.
    own = input_ids >= model.config.vocab_size
    hits = input_ids.masked_fill(own, 0) if eos == 2 else (input_ids == eos)
    return hits.to(torch.int32).argmax(dim=-1)


def _results(model: CLIPTextModel, pooled: Tensor, hidden: list[Tensor], last: Tensor) -> list[Tensor]:
    norm = model.text_model.final_layer_norm
    skipped = [norm(hidden[-1 - k]) for k in range(1, len(hidden) - 1)]
    return [last, pooled, *hidden, *skipped]


def _at(last: Tensor, index: Tensor, positions: Tensor) -> Tensor:
    """``last[row, index[row]]`` as a product with ones and zeros, which every provider runs itself."""
    hits = (positions == index.unsqueeze(1)).to(last.dtype)
    return torch.matmul(hits.unsqueeze(1), last).squeeze(1)


def _forward(target: Target) -> Callable[..., Any]:
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
        return [result.float() for result in _results(model, pooled, hidden, normed)]

    return forward


def _reference(model: CLIPTextModel, inputs: Inputs) -> list[Tensor]:
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
        # With old configs, transformers takes the largest id for the end, but ids of added tokens are larger.
        rows = torch.arange(len(inputs["input_ids"]))
        pooled = out.last_hidden_state[rows, _eos_index(model, inputs["input_ids"])]
    return [out.last_hidden_state, pooled, *hidden, *skipped]


TEXT_ENCODER = Component(
    name="text_encoder",
    checkpoint="text_encoder",
    library="transformers",
    model_class=CLIPTextModel,
    build=lambda config: CLIPTextModel(CLIPTextConfig.from_dict(dict(config))),
    axes={"input_ids": {0: "batch", 1: "sequence"}, ADDED: {0: "added"}, EOS_INDEX: {0: "batch"}},
    examples=_examples,
    outputs=_outputs,
    forward=_forward,
    reference=_reference,
    defaults=lambda model: {ADDED: torch.zeros(1, model.config.hidden_size)},
    hosted=(EOS_INDEX,),
)
