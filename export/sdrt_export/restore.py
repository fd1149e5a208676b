"""Makes a diffusers checkpoint from an exported model, whose graphs keep the parameters' names.

``python -m sdrt_export.restore MODEL CHECKPOINT`` makes a checkpoint to export for another target, or to train further.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import onnx_ir as ir
import torch
from torch import nn

from sdrt.common.visible import visible
from sdrt.errors import RequestError, SdrtError, UnsupportedModelError
from sdrt.families import Family
from sdrt.model_folder.folder import TAESD_DECODER, ModelFolder, expand
from sdrt.model_folder.manifest import Manifest
from sdrt.model_folder.resolve import open_local
from sdrt_export.components import components_of
from sdrt_export.taesd import TAESD
from sdrt_export.targets import TARGETS
from sdrt_export.transaction import replace_folder

__all__ = ["main", "restore_checkpoint"]


def restore_checkpoint(model: str | Path, output: Path, *, force: bool = False) -> None:
    """Write the weights of ``model`` as a diffusers checkpoint in float32.

    ``model`` is a folder that ``sdrt export`` made, or the name of an embedded model. Nothing is downloaded. Weights
    that were stored in float16 stay rounded. A TAESD becomes the folder ``taesd_decoder`` of the checkpoint.

    Raises:
        ModelNotFoundError, IntegrityError: the model is missing or incomplete.
        UnsupportedModelError: the model's weights cannot be restored.
        RequestError: ``output`` exists and ``force`` is false, or ``output`` is ``model`` or inside of it.
    """
    folder = open_local(model)
    manifest = _restorable(folder)
    folder.verify()
    output = expand(output)
    if output.resolve().is_relative_to(folder.path.resolve()):
        raise RequestError.advised(
            f"{output} is inside the model {folder.path}", "choose a folder outside", path=output
        )
    with replace_folder(output, force, reading=folder.path) as staging:
        for part, names in _parts(folder.family).items():
            weights = {key: value for name in names for key, value in _weights(folder, manifest, name)}
            module = components_of(folder.family)[names[0]].build(folder.component_config(names[0]))
            _load(folder, module, weights)
            module.save_pretrained(staging / part)  # type: ignore[operator]
        if folder.has(TAESD_DECODER):
            _taesd(folder, manifest).save_pretrained(staging / TAESD_DECODER)
        names_of_folders = (*folder.family.tokenizers, "scheduler", "low_res_scheduler")
        copied_folders = tuple(f"{name}/" for name in names_of_folders)
        copied = (name for name in manifest.files if name.startswith(copied_folders))
        for name in ("model_index.json", *copied):
            (staging / name).parent.mkdir(exist_ok=True)
            # Without the mode, because installed files may be read-only.
            shutil.copyfile(folder.path / name, staging / name)


def _taesd(folder: ModelFolder, manifest: Manifest) -> Any:
    """The TAESD for previews. Only its decoder was exported, so the weights of its encoder are zero."""
    module = TAESD.build(folder.component_config(TAESD_DECODER))
    decoder = module.get_submodule("decoder")
    weights = dict(_weights(folder, manifest, TAESD_DECODER))
    for parameter in module.parameters():
        parameter.data.zero_()
    _load(folder, decoder, {key.removeprefix("decoder."): value for key, value in weights.items()})
    return module


def _restorable(folder: ModelFolder) -> Manifest:
    """The manifest of a folder whose weights can be restored. Raises `UnsupportedModelError` for others."""
    if folder.manifest is None or folder.manifest.exporter != "sdrt":
        raise UnsupportedModelError.advised(
            f"{folder.path} was not exported by sdrt, so its weights have other names",
            "restore a model of sdrt export",
            path=folder.path,
        )
    if TARGETS[folder.manifest.target].channels_last:
        raise UnsupportedModelError.advised(
            f"{folder.path} was exported for target {folder.manifest.target}, which packs weights",
            "use an export for another target",
            path=folder.path,
        )
    if folder.manifest.dtype == "int8":
        raise UnsupportedModelError.advised(
            f"{folder.path} is in int8, which keeps too little of the weights",
            "use an export in fp32 or fp16",
            path=folder.path,
        )
    return folder.manifest


def _parts(family: Family) -> dict[str, list[str]]:
    """The components with the weights of each checkpoint folder."""
    parts: dict[str, list[str]] = {}
    for component in components_of(family).values():
        parts.setdefault(component.checkpoint, []).append(component.name)
    return parts


def _weights(folder: ModelFolder, manifest: Manifest, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    entry = manifest.components.get(name, {})
    if "transposed" not in entry:
        raise UnsupportedModelError.advised(
            f"{folder.path}: sdrt.json does not say how {name} was exported",
            "export it with this version of sdrt",
            path=folder.path,
            component=name,
        )
    transposed = set(entry["transposed"])
    for key, value in ir.load(folder.component(name)).graph.initializers.items():
        if value.const_value is not None and value.const_value.dtype in (
            ir.DataType.FLOAT,
            ir.DataType.FLOAT16,
        ):
            tensor = torch.from_numpy(value.const_value.numpy().copy()).float()
            yield key, tensor.t().contiguous() if key in transposed else tensor


def _load(folder: ModelFolder, module: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Set every parameter. Other values in ``weights`` are constants of the graph."""
    for key, parameter in module.named_parameters():
        if key not in weights or weights[key].shape != parameter.shape:
            raise UnsupportedModelError(
                f"{folder.path} has no weight {key} of {list(parameter.shape)}", path=folder.path
            )
        parameter.data.copy_(weights[key])


@click.command()
@click.argument("model")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-f", "--force", is_flag=True, help="Replace an existing folder.")
def main(model: str, checkpoint: Path, force: bool) -> None:
    """Write the weights of MODEL, as sdrt names it, to the folder CHECKPOINT in diffusers' layout."""
    try:
        restore_checkpoint(model, checkpoint, force=force)
    except SdrtError as error:
        click.echo(visible(f"error: {error}"), err=True)
        raise SystemExit(error.exit_code) from None
    click.echo(checkpoint)


if __name__ == "__main__":
    main()
