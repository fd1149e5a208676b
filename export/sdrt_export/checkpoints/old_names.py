"""Names of tensors that other versions of diffusers and transformers wrote, and those that the builders use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

__all__ = ["current_names"]

_VAE_ATTENTION = re.compile(r"(\.mid_block\.attentions\.\d+)\.(query|key|value|proj_attn)\.")
_VAE_PARTS = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_CLIP = "text_model."
_CLIP_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")


def _vae(name: str) -> str:
    """The current name of a VAE's tensor. SD 1's files are from diffusers before 0.17, with other attention names."""
    return _VAE_ATTENTION.sub(lambda found: f"{found[1]}.{_VAE_PARTS[found[2]]}.", name)


def _clip(name: str) -> str:
    """The current name of a text encoder's tensor. transformers leaves out `text_model.` since version 5.6."""
    return f"{_CLIP}{name}" if name.startswith(_CLIP_PARTS) else name


_CURRENT: Mapping[str, Callable[[str], str]] = {
    "AutoencoderKL": _vae,
    "CLIPTextModel": _clip,
    "CLIPTextModelWithProjection": _clip,
}


def current_names(class_name: str, names: Iterable[str]) -> dict[str, str]:
    """Map the builders' names of a class's tensors to those in the file."""
    renamed = _CURRENT.get(class_name, str)
    return {renamed(name): name for name in names}
