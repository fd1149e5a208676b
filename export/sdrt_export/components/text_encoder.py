"""CLIP's text encoder, with all hidden states, and with embeddings that a caller adds to the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from sdrt_export.architectures.clip_text import ADDED, EOS_INDEX, ClipTextConfig, clip_text
from sdrt_export.components.component import Component, Inputs, noise

__all__ = ["TEXT_ENCODER"]


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
    write=lambda config, g, hosted: clip_text(ClipTextConfig.of(config), g, host_index=hosted),
    examples=_examples,
    outputs=_outputs,
    reference=_reference,
)
