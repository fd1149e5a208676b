"""Folders as diffusers' first converter to ONNX leaves them: no config.json, a VAE encoder that draws its own noise.

The names of inputs, outputs and axes, and the dtypes, are those of `convert_stable_diffusion_checkpoint_to_onnx.py` in
several versions of diffusers, of Olive's example, and of other people's copies of the script.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["LEGACY", "Legacy", "make_legacy"]

GRAPHS = ("text_encoder", "unet", "vae_encoder", "vae_decoder")
BATCH, SIZE = {0: "batch"}, {0: "batch", 1: "channels", 2: "height", 3: "width"}


@dataclass(frozen=True, kw_only=True)
class Legacy:
    """How one converter differs from another.

    Attributes:
        variant: the checkpoint.
        halves: the components in float16.
        timestep: the dtype of the timestep.
        timestep_axes: the timestep's free axes: {0: "batch"}, {} for a fixed length, None for a scalar.
        location: the file of the U-Net's weights; "" keeps them in the graph, None gives each its own file.
        class_name: the class in the index.
        fixed: whether the shapes of the U-Net and the VAE are fixed, to two images and `side` latents.
        side: the side of the latents in the examples.
    """

    variant: str = "sd1"
    halves: tuple[str, ...] = ()
    timestep: str = "float32"
    timestep_axes: Mapping[int, str] | None = None
    location: str | None = "weights.pb"
    class_name: str = "OnnxStableDiffusionPipeline"
    fixed: bool = False
    side: int = 8


LEGACY = {
    "0.3": Legacy(
        timestep="int64", timestep_axes=BATCH, location=None, class_name="StableDiffusionOnnxPipeline"
    ),
    "0.6": Legacy(timestep="int64", timestep_axes=BATCH),
    "0.9": Legacy(timestep="float32", timestep_axes=BATCH),
    "fp16": Legacy(halves=GRAPHS, timestep="float16", timestep_axes=BATCH),
    "olive": Legacy(halves=("unet",), timestep="int64", timestep_axes={}, location="model.onnx.data"),
    "scalar": Legacy(halves=("vae_decoder", "text_encoder"), timestep="float32", location=""),
    "sd2": Legacy(variant="sd2", timestep_axes=BATCH),
    "inpaint": Legacy(
        variant="inpaint", timestep_axes=BATCH, class_name="OnnxStableDiffusionInpaintPipeline"
    ),
    "upscale": Legacy(
        variant="upscale", timestep_axes=BATCH, class_name="OnnxStableDiffusionUpscalePipeline"
    ),
    "fixed": Legacy(timestep="int64", timestep_axes={}, fixed=True),
}


def make_legacy(checkpoint: Path, folder: Path, row: Legacy) -> Path:
    """Convert a checkpoint of `checkpoints.VARIANTS` as `row` says. Returns `folder`."""
    import torch
    from diffusers import DiffusionPipeline

    folder.mkdir(parents=True)
    pipeline = DiffusionPipeline.from_pretrained(checkpoint)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the TorchScript exporter warns of itself and of what it traces
        _text_encoder(pipeline.text_encoder, folder, row)
        _unet(pipeline.unet, pipeline.text_encoder.config.max_position_embeddings, folder, row)
        _vae(pipeline.vae, folder, row)
    for part in ("tokenizer", "scheduler", "low_res_scheduler"):
        if (checkpoint / part).is_dir():
            shutil.copytree(checkpoint / part, folder / part)
    _index(checkpoint, folder, row)
    return folder


def _export(
    module: Any, examples: tuple[Any, ...], path: Path, names: list[str], outputs: list[str], axes: Any
) -> None:
    import torch

    path.parent.mkdir(exist_ok=True)
    torch.onnx.export(
        module,
        examples,
        str(path),
        input_names=names,
        output_names=outputs,
        dynamic_axes=axes,
        do_constant_folding=True,
        opset_version=17,
        dynamo=False,
    )


def _dtype(row: Legacy, name: str) -> Any:
    import torch

    return torch.float16 if name in row.halves else torch.float32


def _text_encoder(model: Any, folder: Path, row: Legacy) -> None:
    import torch

    ids = torch.zeros(1, model.config.max_position_embeddings, dtype=torch.int32)
    _export(
        _Called(model.to(_dtype(row, "text_encoder")), lambda model, ids: model(ids, return_dict=False)),
        (ids,),
        folder / "text_encoder" / "model.onnx",
        ["input_ids"],
        ["last_hidden_state", "pooler_output"],
        {"input_ids": {0: "batch", 1: "sequence"}},
    )


def _unet(model: Any, length: int, folder: Path, row: Legacy) -> None:
    import torch

    dtype, config = _dtype(row, "unet"), model.config
    timestep = torch.tensor(3 if row.timestep_axes is None else [0, 1][: 2 if row.timestep_axes else 1])
    examples = {
        "sample": torch.randn(2, config.in_channels, row.side, row.side).to(dtype),
        "timestep": timestep.to(getattr(torch, row.timestep)),
        "encoder_hidden_states": torch.randn(2, length, config.cross_attention_dim).to(dtype),
    }
    axes: dict[str, Any] = {"sample": SIZE, "encoder_hidden_states": {0: "batch", 1: "sequence"}}
    axes["timestep"] = row.timestep_axes or {}
    if config.num_class_embeds:
        examples["class_labels"] = torch.tensor([20, 20])
        axes["class_labels"] = BATCH
    path = folder / "unet" / "model.onnx"
    _export(
        _Called(model.to(dtype), lambda model, *given: model(*given, return_dict=False)[0]),
        tuple(examples.values()),
        path,
        list(examples),
        ["out_sample"],
        {} if row.fixed else axes,
    )
    _put_weights(path, row.location)


def _put_weights(path: Path, location: str | None) -> None:
    """Put the weights into one file, or each into its own as torch did before diffusers 0.4."""
    import onnx

    model = onnx.load(path)
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    onnx.save_model(
        model,
        path,
        save_as_external_data=location != "",
        all_tensors_to_one_file=location is not None,
        location=location or None,
        size_threshold=0 if location is None else 1024,
    )


def _vae(model: Any, folder: Path, row: Legacy) -> None:
    import torch

    factor, channels = 2 ** (len(model.config.block_out_channels) - 1), model.config.latent_channels
    _export(
        _Called(model.to(_dtype(row, "vae_encoder")), lambda model, x: model.encode(x)[0].sample()),
        (torch.randn(1, 3, row.side * factor, row.side * factor).to(_dtype(row, "vae_encoder")),),
        folder / "vae_encoder" / "model.onnx",
        ["sample"],
        ["latent_sample"],
        {} if row.fixed else {"sample": SIZE},
    )
    _export(
        _Called(model.to(_dtype(row, "vae_decoder")), lambda model, z: model.decode(z, return_dict=False)[0]),
        (torch.randn(1, channels, row.side, row.side).to(_dtype(row, "vae_decoder")),),
        folder / "vae_decoder" / "model.onnx",
        ["latent_sample"],
        ["sample"],
        {} if row.fixed else {"latent_sample": SIZE},
    )


def _Called(model: Any, call: Callable[..., Any]) -> Any:  # noqa: N802 - it makes a class
    """A module whose forward is `call(model, …)`."""
    from torch import nn

    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, *given: Any) -> Any:
            return call(self.inner, *given)

    return Called().eval()


def _index(checkpoint: Path, folder: Path, row: Legacy) -> None:
    theirs = json.loads((checkpoint / "model_index.json").read_text(encoding="utf-8"))
    graph = ["diffusers", "OnnxRuntimeModel"]
    index = {
        key: theirs[key] for key in ("scheduler", "low_res_scheduler", "max_noise_level") if key in theirs
    }
    index |= {"_class_name": row.class_name, "_diffusers_version": "0.24.0", "requires_safety_checker": True}
    index |= dict.fromkeys((*GRAPHS, "safety_checker"), graph)
    index |= {"tokenizer": ["transformers", "CLIPTokenizer"]}
    index |= {"feature_extractor": ["transformers", "CLIPFeatureExtractor"]}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
