"""The times of one command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Timings"]


@dataclass(kw_only=True)
class Timings:
    """Seconds spent, summed over batches. `unet` has one value per call of the U-Net."""

    load: float = 0.0
    text_encoder: float = 0.0
    vae_encoder: float = 0.0
    unet: list[float] = field(default_factory=list)
    vae_decoder: float = 0.0
    safety_checker: float = 0.0
    total: float = 0.0

    def add(self, timings: Mapping[str, Any]) -> None:
        """Add the timings of one call of the pipeline."""
        self.text_encoder += timings["text_encoder"]
        self.vae_encoder += timings.get("vae_encoder", 0.0)
        self.unet += timings["unet"]
        self.vae_decoder += timings["vae_decoder"]
        self.safety_checker += timings.get("safety_checker", 0.0)
