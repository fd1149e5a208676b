"""The options of `export_model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from sdrt.model_folder.source import Beside
from sdrt_export.targets import AUTO

__all__ = ["EXPORTERS", "ExportKeywords", "ExportOptions"]

EXPORTERS = ("sdrt", "optimum")


class ExportKeywords(TypedDict, total=False):
    """The attributes of `ExportOptions` as arguments, for type checkers and editors."""

    target: str
    dtype: str
    exporter: str
    architecture: str | None
    random_weights: int | None
    guidance_scale: float | None
    num_inference_steps: int | None
    taesd: str | Path | None
    calibration_prompts: Sequence[str] | None
    vae: str | Path | None
    text_encoders: Sequence[str | Path]
    prediction_type: str | None
    config: str | Path | None
    controlnet: Sequence[str | Path]
    ip_adapter: Sequence[str | Path]
    image_encoder: str | Path | None
    safety_checker: bool
    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    verify: bool


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, and how.

    Attributes:
        target: a row of :data:`sdrt_export.targets.TARGETS`.
        dtype: "fp32", "fp16", "int8", or "auto", which suits the target (see :class:`sdrt_export.targets.Target`).
        exporter: "sdrt", whose graphs are fused, or "optimum", for models that "sdrt" does not support.
        architecture: a row of :data:`sdrt_export.architectures.ARCHITECTURES`.
        random_weights: the seed of the weights of ``architecture``.
        guidance_scale, num_inference_steps: the model's defaults. If None, sdrt derives them from the checkpoint's
            kind, name and scheduler, and otherwise takes diffusers' defaults.
        taesd: a folder or hub id of a TAESD. Its decoder becomes part of the model, for previews.
        calibration_prompts: at least 2 prompts like those that an "int8" model is for. None: general ones.
        vae: a file, folder or hub id of a VAE, which replaces the checkpoint's.
        text_encoders: files of text encoders, which replace a single file's.
        prediction_type: "epsilon" or "v_prediction", what a single file's U-Net predicts if the file does not say it.
        config: a folder in diffusers' layout or a hub id, with the configs of a single file that has unusual ones.
        controlnet: files, folders or hub ids of ControlNets and T2I-Adapters, which become components of the model.
        ip_adapter: files of IP-Adapters, which become components of the model, too.
        image_encoder: a file or folder with CLIP's vision encoder, for the IP-Adapters.
        safety_checker: whether the model gets the checkpoint's safety checker, if it has one.
        revision, token, cache_dir: huggingface_hub's, for a hub id. The revision is the checkpoint's.
        verify: compare each component with torch before the folder appears. Needs the extra `verify`. Exports by
            "optimum" are always compared.
    """

    target: str = "cpu"
    dtype: str = AUTO
    exporter: str = "sdrt"
    architecture: str | None = None
    random_weights: int | None = None
    guidance_scale: float | None = None
    num_inference_steps: int | None = None
    taesd: str | Path | None = None
    calibration_prompts: Sequence[str] | None = None
    vae: str | Path | None = None
    text_encoders: Sequence[str | Path] = ()
    prediction_type: str | None = None
    config: str | Path | None = None
    controlnet: Sequence[str | Path] = ()
    ip_adapter: Sequence[str | Path] = ()
    image_encoder: str | Path | None = None
    safety_checker: bool = True
    revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | Path | None = None
    verify: bool = False

    @property
    def beside(self) -> Beside:
        """What is given beside a checkpoint. Raises `RequestError` for a value that does not fit."""
        return Beside(
            vae=self.vae,
            text_encoders=self.text_encoders,
            prediction_type=self.prediction_type,
            config=self.config,
            controlnet=self.controlnet,
            ip_adapter=self.ip_adapter,
            image_encoder=self.image_encoder,
        )

    @property
    def access(self) -> Mapping[str, Any]:
        """huggingface_hub's options for everything on the hub."""
        return {"token": self.token, "cache_dir": self.cache_dir}
