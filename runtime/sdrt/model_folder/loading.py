"""The arguments of `StableDiffusionPipeline.from_pretrained`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from sdrt.common.arguments import argument
from sdrt.common.notices import Notify
from sdrt.errors import RequestError
from sdrt.model_folder.folder import expand
from sdrt.model_folder.model import Model
from sdrt.model_folder.resolve import resolve_model
from sdrt.model_folder.source import Beside
from sdrt.onnx.providers import AUTO, PROVIDERS, SessionConfig

__all__ = ["FileLoading", "Loading"]


@dataclass(frozen=True)
class Loading:
    """Which model to load, and how to run it."""

    model: str | Path = field(
        metadata={
            "about": "A model folder, a torch checkpoint (a folder in diffusers' layout, or a .safetensors file), the "
            'hub id of either, or an embedded model ("shapes").'
        }
    )
    _: KW_ONLY
    provider: str = argument(
        AUTO,
        'Where to run: "auto" (cuda where it works, else cpu), "cpu", "cuda", "tensorrt", "openvino", "webgpu", '
        '"coreml", "tensorrt-rtx" or "mlx"; "cuda:1" is the second device.',
    )
    provider_options: Mapping[str, Any] | None = argument(
        None, 'Options of that provider, such as {"gpu_mem_limit": "6GB"} or {"precision": "bf16"}.'
    )
    provider_library: str | os.PathLike[str] | None = argument(
        None,
        'The library that has the provider: a file, or an installed package such as "onnxruntime-ep-webgpu". The '
        'provider can then be ONNX Runtime\'s own name, such as "ACMEExecutionProvider".',
        usual="the package for the provider, if ONNX Runtime itself does not have it",
    )
    threads: int | None = argument(
        None, "Number of CPU threads, at most one per CPU that this process may use.", usual="every core"
    )
    revision: str | None = argument(None, "Branch, tag or commit of a model on the hub.")
    token: str | bool | None = argument(None, "Access token of the hub. It is passed to huggingface_hub.")
    cache_dir: str | Path | None = argument(None, "Where huggingface_hub keeps downloads.")
    vae: str | Path | None = argument(
        None, "A VAE in place of the checkpoint's: a .safetensors file, a folder or a hub id."
    )
    text_encoders: Sequence[str | Path] = argument(
        (), "Files of text encoders in place of those of a single-file checkpoint. SDXL takes two."
    )
    config: str | Path | None = argument(
        None,
        "A folder or hub id in diffusers' layout, whose configs replace those derived from a single-file checkpoint.",
    )
    prediction_type: str | None = argument(
        None,
        'What the U-Net of a single-file checkpoint predicts: "epsilon" or "v_prediction".',
        usual="what the file says",
    )
    controlnet: str | Path | Sequence[str | Path] = argument(
        (),
        "ControlNets and T2I-Adapters: .safetensors files, folders of diffusers' ControlNetModel or T2IAdapter, or hub "
        "ids. They replace those of an exported model.",
    )
    ip_adapter: str | Path | Sequence[str | Path] = argument(
        (),
        "IP-Adapters: .safetensors files, or where they are on the hub. They replace those of an exported model. "
        "load_ip_adapter loads them later.",
    )
    image_encoder: str | Path | None = argument(
        None,
        "CLIP's vision encoder for the IP-Adapters: a folder of transformers, or a .safetensors file.",
        usual="the model's own, or the folder image_encoder beside the first adapter",
    )
    allow_fallback: bool = argument(False, "Let the CPU run operators that the provider cannot run.")
    vae_tiling: bool | None = argument(
        None,
        "Encode and decode images in tiles. The result is the same, and the VAE needs only the memory of one tile.",
        usual="images above 1024x1024 pixels",
    )
    low_vram: bool | None = argument(
        None,
        "Use as little memory as possible, which takes more time: keep one component in memory at a time, call the "
        "U-Net twice for guidance, and run the VAE in tiles. With False, an error is raised if memory runs out.",
        usual="after memory has run out, for images of that size and larger",
    )
    tune: bool | None = argument(
        None,
        "On the CPU, write each graph into the cache as ONNX Runtime runs it on this machine. Then it loads in a "
        "fraction of the time, and processes share its weights. It takes a third more disk than its float32 weights. "
        "With False, tuned graphs are not used.",
        usual="those that are there are loaded",
    )
    safety_checker: bool | None = argument(
        True,
        "None leaves the model's safety checker out, as in diffusers: it is not downloaded, and its files may be "
        "missing. `pipeline.safety_checker` turns it off later.",
    )
    verify: bool = argument(True, "Check the hashes of files that were not checked before.")
    notify: Notify | None = argument(
        None,
        "Receives messages for the user.",
        usual="warnings become SdrtWarnings, and progress goes to stderr",
    )
    reporter: Any = argument(
        None,
        "Receives the exporter's ProgressEvents when a checkpoint is exported (providers tensorrt, openvino, coreml).",
        usual="the events become messages for the user",
    )

    @property
    def session_config(self) -> SessionConfig:
        """The settings of the sessions.

        Raises:
            ProviderError: there is no such provider.
            RequestError: an option is unknown or has a wrong value.
        """
        return SessionConfig(
            provider=self.provider,
            threads=self.threads,
            allow_fallback=self.allow_fallback,
            vae_tiling=self.vae_tiling,
            low_vram=self.low_vram,
            tune=self.tune,
            provider_options={} if self.provider_options is None else self.provider_options,
            provider_library=self.provider_library,
        )

    @property
    def beside(self) -> Beside:
        """What is given beside a checkpoint. Raises `RequestError` for a value that does not fit."""
        return Beside(
            vae=self.vae,
            text_encoders=self.text_encoders,
            config=self.config,
            prediction_type=self.prediction_type,
            controlnet=self.controlnet,  # type: ignore[arg-type]  # Beside makes a list of one
            ip_adapter=self.ip_adapter,  # type: ignore[arg-type]  # the same
            image_encoder=self.image_encoder,
        )

    def resolved(self, config: SessionConfig) -> Model:
        """Return the model, for the provider that `config` names. Raises `ModelError`, `RequestError`."""
        row = PROVIDERS[config.name]
        return resolve_model(
            self.model,
            beside=self.beside,
            revision=self.revision,
            token=self.token,
            cache_dir=self.cache_dir,
            notify=self.notify,
            target=row.target,
            in_memory=row.takes_memory,
            safety_checker=bool(self.safety_checker),
            reporter=self.reporter,
        )


@dataclass(frozen=True)
class FileLoading(Loading):
    """Which single-file checkpoint to load, and how to run it."""

    model: str | Path = field(
        metadata={
            "about": "A checkpoint's .safetensors file, or where it is on the hub: owner/name/file.safetensors, or the "
            "address of its page."
        }
    )

    def __post_init__(self) -> None:
        if isinstance(self.model, (str, Path)) and _is_folder(expand(self.model)):
            raise RequestError.advised(
                f"{self.model} is a folder",
                "open it with from_pretrained",
                argument="model",
                path=expand(self.model),
            )


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  # Path's own raises for names that are too long
