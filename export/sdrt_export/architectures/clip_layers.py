"""What CLIP's text and vision encoders share: their transformer (arXiv:2103.00020), and keys of their configs."""

from __future__ import annotations

from typing import Protocol

from sdrt_export.architectures.config import Config
from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.values import Attention, Value

__all__ = ["IGNORED", "ClipShape", "activation_of", "clip_states"]

_ACTIVATIONS = ("quick_gelu", "gelu")
# Keys that transformers adds to every config: for training, for text generation, for classifiers, and for the form of
# results.
IGNORED = frozenset(
    {
        *(
            "attention_dropout",
            "dropout",
            "initializer_factor",
            "initializer_range",
            "use_bfloat16",
            "tf_legacy_loss",
        ),
        *("architectures", "transformers_version", "torch_dtype", "dtype", "torchscript", "name_or_path"),
        *(
            "bos_token_id",
            "pad_token_id",
            "sep_token_id",
            "decoder_start_token_id",
            "tokenizer_class",
            "prefix",
        ),
        *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params"),
        *(
            "return_dict",
            "output_attentions",
            "output_hidden_states",
            "output_scores",
            "return_dict_in_generate",
        ),
        *(
            "is_decoder",
            "is_encoder_decoder",
            "add_cross_attention",
            "cross_attention_hidden_size",
            "use_cache",
        ),
        *("tie_encoder_decoder", "tie_word_embeddings", "chunk_size_feed_forward", "gradient_checkpointing"),
        *(
            "max_length",
            "min_length",
            "do_sample",
            "early_stopping",
            "num_beams",
            "num_beam_groups",
            "temperature",
        ),
        *("diversity_penalty", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty"),
        *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences"),
        *("forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "suppress_tokens"),
        *("begin_suppress_tokens", "exponential_decay_length_penalty", "attn_implementation", "xla_device"),
        *("experts_implementation", "ignore_keys_at_rope_validation"),
    }
)


class ClipShape(Protocol):
    """The shape of a transformer."""

    @property
    def width(self) -> int:
        """The channels of a token."""

    @property
    def inner(self) -> int:
        """The channels between the two layers of a feed-forward block."""

    @property
    def layers(self) -> int:
        """The number of layers."""

    @property
    def heads(self) -> int:
        """The heads of an attention, which divide the width."""

    @property
    def activation(self) -> str:
        """The activation of a feed-forward block."""

    @property
    def eps(self) -> float:
        """What a layer norm adds to the variance."""


def activation_of(config: Config) -> str:
    """The activation that a config names. Raises `UnsupportedModelError` for another one than CLIP's two."""
    found = config.get("hidden_act", "quick_gelu")
    if found not in _ACTIVATIONS:
        raise config.refused("hidden_act", " or ".join(_ACTIVATIONS))
    return str(found)


def clip_states(shape: ClipShape, g: Layers, path: str, x: Value, *, causal: bool) -> list[Value]:
    """Write the layers below `path`. Return `x` and the state after each layer, all `[batch, sequence, width]`."""
    states = [x]
    for index in range(shape.layers):
        layer, h = f"{path}.encoder.layers.{index}", states[-1]
        h = g.add(
            _attention(shape, g, layer, g.layer_norm(f"{layer}.layer_norm1", h, shape.eps), causal=causal), h
        )
        h = g.add(_feed_forward(shape, g, layer, g.layer_norm(f"{layer}.layer_norm2", h, shape.eps)), h)
        states.append(h)
    return states


def _attention(shape: ClipShape, g: Layers, path: str, x: Value, *, causal: bool) -> Value:
    attention = Attention(
        f"{path}.self_attn",
        heads=shape.heads,
        width=shape.width,
        names=("q_proj", "k_proj", "v_proj", "out_proj"),
        bias=True,
        causal=causal,
        packed="{}_proj",
    )
    return g.attention(attention, x)


def _feed_forward(shape: ClipShape, g: Layers, path: str, x: Value) -> Value:
    activate = g.quick_gelu if shape.activation == "quick_gelu" else g.gelu
    return g.linear(f"{path}.mlp.fc2", activate(g.linear(f"{path}.mlp.fc1", x, shape.inner)), shape.width)
