"""CLIP's text encoders, with all hidden states, and with embeddings that a caller adds to the vocabulary."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdrt_export.architectures.clip_text import ADDED, EOS_INDEX, ClipTextConfig, clip_text
from sdrt_export.components.component import Component, Config, Inputs, noise, whole_numbers
from sdrt_export.graphs.layers import Layers

__all__ = ["TEXT_ENCODER", "TEXT_ENCODER_2", "eos_index", "text_encoder"]

# Configs from before transformers 4.31 have the value 2, which was never CLIP's end token.
_OLD_EOS = 2
# Tensors that files of a whole CLIP model have beside its text encoder.
_REST_OF_CLIP = ("vision_model.", "visual_projection.", "logit_scale")
_PROJECTION = "text_projection."


def text_encoder(name: str = "text_encoder", *, projected: bool = False) -> Component:
    """The text encoder in the folder `name`.

    With `projected` its pooled output is projected to `text_embeds`, as in transformers'
    `CLIPTextModelWithProjection`. Without, a projection in the weights is not used.
    """

    def of(config: Config) -> ClipTextConfig:
        return ClipTextConfig.of(config, name, projected=projected)

    def write(config: Config, g: Layers, hosted: bool) -> None:
        clip_text(of(config), g, host_index=hosted)

    return Component(
        name=name,
        checkpoint=name,
        library="transformers",
        class_name="CLIPTextModelWithProjection" if projected else "CLIPTextModel",
        write=write,
        examples=lambda config, size: _examples(of(config), size),
        outputs=lambda config: _outputs(of(config)),
        unused=_REST_OF_CLIP if projected else (*_REST_OF_CLIP, _PROJECTION),
    )


def _examples(config: ClipTextConfig, size: int) -> Inputs:
    batch, length = [(2, config.length), (1, min(9, config.length)), (2, config.length)][size]
    # Only size 1 has added tokens, because other exporters' graphs do not support them.
    added = 3 if size == 1 else 0
    ids = whole_numbers(config.vocabulary + added, batch, length, seed=size)
    return {
        "input_ids": ids,
        ADDED: noise(max(1, added), config.width, seed=size),
        EOS_INDEX: eos_index(ids, eos=config.eos, vocabulary=config.vocabulary),
    }


def _outputs(config: ClipTextConfig) -> list[str]:
    return [
        "last_hidden_state",
        "text_embeds" if config.projection else "pooler_output",
        *(f"hidden_states.{index}" for index in range(config.layers + 1)),
        *(f"last_hidden_state.skip_{k}" for k in range(1, config.layers)),
    ]


def eos_index(ids: NDArray[np.int64], *, eos: int, vocabulary: int) -> NDArray[np.int64]:
    """The position `[batch]` of the token whose hidden state is the pooled output, in `ids` [batch, sequence].

    With old configs it is the largest id, except for added tokens, which are ids from `vocabulary` on.
    """
    hits = np.where(ids >= vocabulary, 0, ids) if eos == _OLD_EOS else ids == eos
    found: NDArray[np.int64] = hits.argmax(axis=-1)
    return found


TEXT_ENCODER = text_encoder()
TEXT_ENCODER_2 = text_encoder("text_encoder_2", projected=True)
