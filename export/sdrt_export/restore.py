"""Makes a diffusers checkpoint from an exported model, whose graphs keep the parameters' names.

``python -m sdrt_export.restore MODEL CHECKPOINT`` makes a checkpoint to export for another target, or to train further.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import click
import numpy as np

from sdrt.common.visible import visible
from sdrt.errors import RequestError, SdrtError, UnsupportedModelError
from sdrt.model_folder.folder import TAESD_DECODER, ModelFolder, expand
from sdrt.model_folder.manifest import Manifest
from sdrt.model_folder.resolve import open_local
from sdrt_export.architectures.taesd import taesd_encoder_shapes
from sdrt_export.checkpoints.defaults import DEFAULTS, completed
from sdrt_export.checkpoints.safetensors_writer import write_safetensors
from sdrt_export.components import Component, parts_of
from sdrt_export.components.outline import tensors_of
from sdrt_export.graphs.stored import StoredGraph
from sdrt_export.side_files import write_json
from sdrt_export.taesd import TAESD
from sdrt_export.targets import TARGETS
from sdrt_export.tensors.array import Array, Shape
from sdrt_export.transaction import replace_folder

__all__ = ["main", "restore_checkpoint"]

_NAMING = ("_class_name", "_diffusers_version", "architectures", "transformers_version")


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
        for part, components in parts_of(folder.family).items():
            _write(folder, manifest, components, staging / part)
        if folder.has(TAESD_DECODER):
            _write(folder, manifest, [TAESD], staging / TAESD_DECODER)
        names_of_folders = (*folder.family.tokenizers, "scheduler", "low_res_scheduler")
        copied_folders = tuple(f"{name}/" for name in names_of_folders)
        copied = (name for name in manifest.files if name.startswith(copied_folders))
        for name in ("model_index.json", *copied):
            (staging / name).parent.mkdir(exist_ok=True)
            # The mode is not copied, because installed files may be read-only.
            shutil.copyfile(folder.path / name, staging / name)


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


def _write(folder: ModelFolder, manifest: Manifest, components: list[Component], output: Path) -> None:
    """Write the config and the weights of the components that share a folder of the checkpoint."""
    output.mkdir()
    class_name = components[0].class_name
    config = completed(class_name, folder.component_config(components[0].name))
    weights: dict[str, Callable[[], Array]] = {}
    shapes: dict[str, Shape] = {}
    for component in components:
        needed = tensors_of([component], config)
        shapes |= needed
        weights |= _weights(folder, manifest, component.name, needed)
    if components == [TAESD]:
        # Only its decoder was exported.
        spare = taesd_encoder_shapes(config)
        shapes |= spare
        weights |= {name: partial(np.zeros, shape) for name, shape in spare.items()}
    name = "model" if components[0].library == "transformers" else "diffusion_pytorch_model"
    write_safetensors(output / f"{name}.safetensors", shapes, lambda key: weights[key]())
    # Folders of older versions have keys that other classes of the library take.
    known = {*DEFAULTS[class_name], *_NAMING}
    write_json(output / "config.json", {key: value for key, value in config.items() if key in known})


def _weights(
    folder: ModelFolder, manifest: Manifest, name: str, needed: Mapping[str, Shape]
) -> dict[str, Callable[[], Array]]:
    """Functions that read the weights of an exported component."""
    entry = manifest.components.get(name, {})
    if "transposed" not in entry:
        raise UnsupportedModelError.advised(
            f"{folder.path}: sdrt.json does not say how {name} was exported",
            "export it with this version of sdrt",
            path=folder.path,
            component=name,
        )
    graph, transposed = StoredGraph.read(folder.component(name)), set(entry["transposed"])

    def read(key: str) -> Array:
        value = graph.array(key)
        return value.T if key in transposed else value

    for key, shape in needed.items():
        found = graph.shape(key) if key in graph.initializers else ()
        if (found[::-1] if key in transposed else found) != shape:
            raise UnsupportedModelError(
                f"{folder.path} has no weight {key} of {list(shape)}", path=folder.path
            )
    return {key: partial(read, key) for key in needed}


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
