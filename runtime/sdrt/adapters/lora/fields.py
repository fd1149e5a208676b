"""What the end of a key says: which tensor of a layer's adapter it is, in the spellings of all programs."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["FIELDS", "UNSUPPORTED", "split_key"]

FIELDS: Mapping[str, str] = {
    # kohya, LyCORIS
    "lora_up.weight": "up",
    "lora_down.weight": "down",
    "lora_mid.weight": "mid",
    "alpha": "alpha",
    "scale": "scale",
    "dora_scale": "dora_scale",
    **{
        field: field
        for field in (
            *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
            *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
            *("diff", "diff_b", "w_norm", "b_norm", "on_input", "weight"),
        )
    },
    # PEFT, and diffusers since 0.22
    "lora_B.weight": "up",
    "lora_A.weight": "down",
    "lora_B": "up",
    "lora_A": "down",
    "lora_B.bias": "up_bias",
    "lora_embedding_B": "embedding_up",
    "lora_embedding_A": "embedding_down",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    # diffusers before that
    "lora.up.weight": "up",
    "lora.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
}
"""What programs call the tensors of a layer's adapter."""
# PEFT puts the adapter's own name behind these: `lora_A.default.weight`, `lora_embedding_A.default`.
_NAMED = frozenset({"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"})
_OLD = "_lora"  # of diffusers' attention processors: `attn1.processor.to_q_lora.up.weight`
_PROCESSOR = ".processor"

UNSUPPORTED: Mapping[str, str] = {
    "oft_blocks": "OFT",
    "oft_diag": "OFT",
    "oft_R": "OFT",
    "boft_R": "BOFT",
    "boft_s": "BOFT",
    "a1": "GLoRA",
    "b1": "GLoRA",
    "ia3_l": "PEFT's form of IA³",
    "vera_lambda_b": "VeRA",
    "hra_u": "HRA",
    "randlora_lambda": "RandLora",
    "fourierft_spectrum": "FourierFT",
    "set_weight": "whole weights (set_weight)",
    "reshape_weight": "reshaped weights (reshape_weight)",
}
"""Kinds of adapters that cannot be applied, by the part of a key that shows them."""


def split_key(key: str) -> tuple[str, str] | None:
    """Split a key into the module's name and one of the fields that `sdrt.adapters.lora.kinds` knows.

    An unsupported kind's field is its name in `UNSUPPORTED`. None for a key without such an end.
    """
    parts = key.rsplit(".", 4)
    return (
        _listed(parts, 3)
        or _listed(parts, 2)
        or _peft(parts)
        or _old(parts)
        or _unsupported(parts)
        or _listed(parts, 1)
    )


def _listed(parts: list[str], count: int) -> tuple[str, str] | None:
    tail = ".".join(parts[-count:])
    return (".".join(parts[:-count]), FIELDS[tail]) if tail in FIELDS else None


def _peft(parts: list[str]) -> tuple[str, str] | None:
    """Leave out the adapter's own name."""
    for count in (3, 2):
        own = parts[-count:]
        if len(own) == count and own[0] in _NAMED:
            return _listed([*parts[:-count], own[0], *own[2:]], count - 1)
    return None


def _old(parts: list[str]) -> tuple[str, str] | None:
    if len(parts) < 4 or not parts[-3].endswith(_OLD) or parts[-1] != "weight":
        return None
    if parts[-2] not in ("up", "down"):
        return None
    module = ".".join([*parts[:-3], parts[-3].removesuffix(_OLD)])
    head, dot, last = module.rpartition(".")
    return f"{head.removesuffix(_PROCESSOR)}{dot}{last}", parts[-2]


def _unsupported(parts: list[str]) -> tuple[str, str] | None:
    return next(
        (
            (".".join(parts[:place]), parts[place])
            for place in (-3, -2, -1)
            if _at(parts, place) in UNSUPPORTED
        ),
        None,
    )


def _at(parts: list[str], place: int) -> str:
    return parts[place] if len(parts) >= -place else ""
