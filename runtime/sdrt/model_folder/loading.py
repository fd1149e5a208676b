"""What `StableDiffusionPipeline.from_pretrained` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from sdrt.common.arguments import argument
from sdrt.common.notices import Notify
from sdrt.onnx.providers import AUTO, SessionConfig

__all__ = ["Loading"]


@dataclass(frozen=True)
class Loading:
    """A model, and how to run it."""

    model: str | Path = field(
        metadata={
            "about": 'A model folder, a hub id, or an embedded model ("shapes"). A torch checkpoint is exported once.'
        }
    )
    _: KW_ONLY
    provider: str = argument(
        AUTO,
        'Where to run: "auto" (cuda where it works, else cpu), "cpu", "cuda", "tensorrt", "openvino" or "coreml"; '
        '"cuda:1" is the second device.',
    )
    provider_options: Mapping[str, Any] | None = argument(
        None, 'Of the provider that is named, such as {"gpu_mem_limit": "6GB"} or {"precision": "bf16"}.'
    )
    threads: int | None = argument(None, "CPU threads.", usual="every core")
    revision: str | None = argument(None, "Branch, tag or commit of a model on the Hub.")
    token: str | bool | None = argument(None, "Passed to huggingface_hub.")
    cache_dir: str | Path | None = argument(None, "Where huggingface_hub keeps downloads.")
    allow_fallback: bool = argument(False, "Run on the CPU what the provider cannot.")
    vae_tiling: bool | None = argument(
        None,
        "Encode and decode images in tiles, in the memory of one tile and with the same result.",
        usual="images above 1024x1024 pixels",
    )
    low_vram: bool | None = argument(
        None,
        "Take as little memory as possible, and more time: one component in memory at a time, guidance in two calls "
        "of the U-Net, the VAE in tiles. False raises an error where memory runs out.",
        usual="once memory has run out, for images of that size and above",
    )
    verify: bool = argument(True, "Check the hashes of files that were not seen before.")
    notify: Notify | None = argument(
        None,
        "Receives messages for the user.",
        usual="warnings are SdrtWarnings, and progress goes to stderr",
    )
    reporter: Any = argument(
        None,
        "Receives the exporter's ProgressEvents when a checkpoint is exported.",
        usual="they are messages for the user, too",
    )

    @property
    def session_config(self) -> SessionConfig:
        """How sessions are made. Raises `ProviderError`, `RequestError` for what there is not."""
        return SessionConfig(
            provider=self.provider,
            threads=self.threads,
            allow_fallback=self.allow_fallback,
            vae_tiling=self.vae_tiling,
            low_vram=self.low_vram,
            provider_options={} if self.provider_options is None else self.provider_options,
        )
