"""An architecture with random weights, a checkpoint that needs no download."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sdrt.errors import RequestError
from sdrt.families import Family, family_of
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from sdrt_export.architectures import ARCHITECTURES
from sdrt_export.checkpoint import for_inference, parts_of

__all__ = ["RandomCheckpoint"]


@dataclass(frozen=True, kw_only=True)
class RandomCheckpoint:
    """A full-size architecture with random weights, for measuring a device without a download."""

    architecture: str
    seed: int

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(sorted(ARCHITECTURES))
            raise RequestError.expected(
                f"unknown architecture {self.architecture!r}", f"one of {known}", argument="architecture"
            )
        if not 0 <= self.seed < 2**32:
            raise RequestError.expected(
                f"--random-weights {self.seed}", f"a seed from 0 to {2**32 - 1}", argument="random_weights"
            )

    @property
    def name(self) -> str:
        """The source's name in the manifest."""
        return f"{self.architecture}-random-{self.seed}"

    @property
    def family(self) -> Family:
        """The family that the architecture's ``model_index`` names; Stable Diffusion without one."""
        return family_of(ARCHITECTURES[self.architecture].get("model_index", {})) or STABLE_DIFFUSION

    @property
    def revision(self) -> str | None:
        """None, because nothing was downloaded."""
        return None

    def load(self, part: str) -> nn.Module:
        """See :class:`Checkpoint`. Each parameter has its own seed, so their order does not matter."""
        config = ARCHITECTURES[self.architecture][part]
        with torch.device("meta"):
            module = parts_of(self.family)[part].build(config)
        module = module.to_empty(device="cpu")
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                _draw(name, parameter, self.seed)
        for name, buffer in module.named_buffers():
            if name.endswith("position_ids"):
                buffer.copy_(torch.arange(buffer.shape[-1]).expand(buffer.shape))
        return for_inference(module)

    def scheduler_config(self) -> dict[str, Any]:
        """See :class:`Checkpoint`."""
        return dict(ARCHITECTURES[self.architecture]["scheduler"])

    def low_res_scheduler_config(self) -> dict[str, Any] | None:
        """See :class:`Checkpoint`."""
        return (
            dict(low_res) if (low_res := ARCHITECTURES[self.architecture].get("low_res_scheduler")) else None
        )

    def index(self) -> dict[str, Any]:
        """See :class:`Checkpoint`."""
        return {}

    def tokenizer_folders(self) -> dict[str, Path]:
        """Empty. Random weights know no words, so the exporter writes byte-level tokenizers."""
        return {}

    def size(self) -> int:
        """See :class:`Checkpoint`."""
        with torch.device("meta"):
            configs = ARCHITECTURES[self.architecture]
            modules = [row.build(configs[part]) for part, row in parts_of(self.family).items()]
        return 4 * sum(p.numel() for module in modules for p in module.parameters())


def _draw(name: str, parameter: torch.Tensor, seed: int) -> None:
    """Draw norms around 1, biases around 0, and matrices scaled by fan-in, so that the signal keeps its size."""
    generator = torch.Generator().manual_seed(seed ^ zlib.crc32(name.encode()))
    if parameter.ndim == 1:
        parameter.normal_(float("norm" in name and name.endswith("weight")), 0.02, generator=generator)
    else:
        fan_in = parameter[0].numel()
        parameter.normal_(
            0.0, 0.5 if "embedding" in name and "linear" not in name else fan_in**-0.5, generator=generator
        )
