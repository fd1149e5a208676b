"""`open_adapter`: a LoRA or LyCORIS file as changes of a model's parameters. Only safetensors files are read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sdrt.adapters.change import Adapter, Change, Shape
from sdrt.adapters.lora.family import check_family, title_of
from sdrt.adapters.lora.fields import UNSUPPORTED, split_key
from sdrt.adapters.lora.layers import Layer
from sdrt.adapters.lora.modules import Module, ModuleNames
from sdrt.adapters.lora.scales import read_scales
from sdrt.adapters.lora.tensor import Tensor
from sdrt.common.file_kind import PICKLES, is_safetensors
from sdrt.common.mapped_file import MappedFile
from sdrt.common.messages import brief, wrong_value
from sdrt.common.safetensors_file import SafetensorsFile
from sdrt.errors import ModelNotFoundError, UnsupportedModelError
from sdrt.families import Family

__all__ = ["listed", "open_adapter"]

Shapes = Mapping[str, Mapping[str, Shape]]
_FILE = "the .safetensors file of a LoRA"
# What diffusers and PEFT call the file of their folders.
_IN_FOLDERS = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_MOST_LISTED = 5


def open_adapter(
    path: str | os.PathLike[str], *, family: Family, shapes: Shapes, name: str | None = None
) -> Adapter:
    """Read a LoRA's file for a model. Its tensors are checked now, and stay in the mapped file until they are needed.

    Args:
        path: the file, or a folder that diffusers or PEFT wrote.
        family: the model's.
        shapes: the shapes of the model's parameters, by component and by the name in diffusers or transformers.
        name: how the user calls it; by default as the file is called.

    Raises:
        RequestError: `path` is no path.
        ModelNotFoundError: there is no such file.
        UnsupportedModelError: it is a pickle, damaged, no LoRA, one for another model, or of a kind that is not
            supported.
    """
    file = _opened(path)
    check_family(file.header, family, shapes)
    layers, left_over = _layers(file, ModuleNames(shapes))
    changes: dict[str, dict[str, Change]] = {}
    scales = read_scales(file.header)
    for layer in layers.values():
        module = layer.module
        made = dict(layer.changes(shapes[module.component], scales))
        if made:
            changes.setdefault(module.component, {}).update(made)
        left_over += [tensor.key for field, tensor in layer.fields.items() if field not in layer.used]
    if not changes:
        raise _matches_nothing(file.header, title_of(family, shapes))
    return Adapter(
        name=file.header.path.stem if name is None else name,
        path=file.header.path,
        changes=changes,
        left_over=sorted(left_over),
        notes=scales.notes,
    )


def _layers(file: MappedFile, names: ModuleNames) -> tuple[dict[Module, Layer], list[str]]:
    """The model's modules that a file has something for, and the keys that match none."""
    layers: dict[Module, Layer] = {}
    left_over = []
    for key in file.header.tensors:
        split = split_key(key)
        if split is not None and split[1] in UNSUPPORTED:
            raise _unsupported(file.header.path, UNSUPPORTED[split[1]], key)
        module = names.find(split[0]) if split is not None else None
        if split is None or module is None:
            left_over.append(key)
            continue
        fields = layers.setdefault(module, Layer(module)).fields
        if split[1] in fields:
            raise _twice(file.header.path, fields[split[1]].key, key)
        fields[split[1]] = Tensor(file, key)
    return layers, left_over


def listed(keys: list[str], most: int = _MOST_LISTED) -> str:
    """Some keys for a message, which says how many more there are."""
    shown = ", ".join(brief(key, 100) for key in keys[:most])
    return f"{shown} and {len(keys) - most} more" if len(keys) > most else shown


def _opened(path: str | os.PathLike[str]) -> MappedFile:
    if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
        raise wrong_value("path", path, _FILE)
    file = Path(path)
    try:
        file = _in_folder(file) if file.is_dir() else file
        if file.suffix.lower() in PICKLES:
            raise _refusal_of_pickle(file)
        return MappedFile.open(file)
    except FileNotFoundError:
        raise ModelNotFoundError.expected(f"{file} does not exist", _FILE, path=file) from None
    except OSError as error:
        raise ModelNotFoundError.expected(
            f"{brief(str(file), 300)} cannot be read ({error.strerror or error})", _FILE, path=file
        ) from None


def _in_folder(folder: Path) -> Path:
    found = [folder / name for name in _IN_FOLDERS if (folder / name).is_file()]
    if len(found) == 1:
        return found[0]
    such = sorted(one.name for one in folder.glob("*.safetensors"))
    example = f", such as {folder / such[0]}" if such else ""
    raise ModelNotFoundError.expected(f"{folder} is a folder", f"{_FILE}{example}", path=folder)


def _refusal_of_pickle(path: Path) -> UnsupportedModelError:
    """The error for a file that is a pickle by its name."""
    if is_safetensors(path):
        return UnsupportedModelError.advised(
            f"{path} is a safetensors file, but its name does not say so",
            f"rename it to {path.with_suffix('.safetensors')}",
            path=path,
        )
    return UnsupportedModelError.advised(
        f"{path} is a pickle, which runs code when it is read",
        "take the .safetensors file of the same LoRA, or, if you trust it, convert it with torch.load and "
        "safetensors.torch.save_file",
        path=path,
    )


def _unsupported(path: Path, kind: str, key: str) -> UnsupportedModelError:
    return UnsupportedModelError.expected(
        f"{path} is an adapter of the kind {kind}, which is not supported ({brief(key, 200)})",
        "LoRA, LoCon, LoHa, LoKr, IA³, DoRA, or whole differences",
        path=path,
    )


def _twice(path: Path, first: str, second: str) -> UnsupportedModelError:
    return UnsupportedModelError.expected(
        f"{path} has the same tensor twice, as {brief(first, 200)} and as {brief(second, 200)}",
        "each tensor once",
        path=path,
    )


def _matches_nothing(file: SafetensorsFile, title: str) -> UnsupportedModelError:
    return UnsupportedModelError.expected(
        f"{file.path} has no key that matches {title} ({listed(list(file.tensors)) or 'it is empty'})",
        f"a LoRA for {title}",
        path=file.path,
    )
