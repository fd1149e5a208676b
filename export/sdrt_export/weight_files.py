"""The safetensors files of a checkpoint's component: whole or in shards, in full precision or a variant."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from sdrt.errors import IntegrityError, ModelNotFoundError, UnsupportedModelError
from sdrt.model_folder.file_kind import PICKLES

__all__ = ["Weights", "find_weights", "link_name", "num_elements"]

_SHARD = r"-\d{5}-of-\d{5}"
# diffusers put the variant behind the number of the shard until version 0.28, and puts it before the number since then.
_NAME = re.compile(rf"[^.]+?(?:{_SHARD})?(?:\.(?P<variant>\w+))?(?:{_SHARD})?\.safetensors")
_INDEX = re.compile(r"(?P<name>[^.]+)(?:\.\w+)?\.safetensors\.index(?:\.\w+)?\.json")
# The most precise first. Other variants, such as "non_ema", hold other weights.
_VARIANTS = (None, "fp16", "bf16")
_WHOLE_NUMBERS = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"})
# What bitsandbytes, ComfyUI, quanto and torchao call the factors of quantised weights.
_FACTORS = (
    ".SCB",
    ".absmax",
    ".quant_map",
    ".scale_weight",
    ".weight_scale",
    ".weight._scale",
    ".scale_input",
)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The files of one component, and their variant as loaders name it: None for full precision."""

    files: list[Path]
    variant: str | None


def find_weights(folder: Path) -> Weights:
    """Find the weights of one component, in full precision if there are any, else in fp16, else in bf16.

    Raises:
        UnsupportedModelError: there are only pickles.
        ModelNotFoundError: there are no weights.
    """
    found = _by_variant(folder)
    # A folder may have the same text encoder under both libraries' names. Loaders take the first that they know.
    for variant in _VARIANTS:
        if variant in found:
            _check_shards(folder, found[variant])
            _check_numbers(found[variant])
            return Weights(files=found[variant], variant=variant)
    pickles = sorted(file for file in folder.glob("*") if file.suffix in PICKLES)
    if pickles:
        raise UnsupportedModelError.advised(
            f"{pickles[0]}: a pickle runs code when it is read, so only .safetensors is accepted",
            "use a revision that has them, or convert it with diffusers' save_pretrained(…, "
            "safe_serialization=True)",
            joint="; ",
            path=pickles[0],
        )
    others = ", ".join(sorted(str(variant) for variant in found))
    raise ModelNotFoundError.advised(
        f"{folder} has no .safetensors weights" + (f" but of the variant {others}" if others else ""),
        "download the checkpoint again, or use a revision that has them; pickles are not "
        "accepted, because they run code when they are read",
        path=folder,
    )


def _by_variant(folder: Path) -> Mapping[str | None, list[Path]]:
    found: dict[str | None, list[Path]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        if match := _NAME.fullmatch(file.name):
            found.setdefault(match["variant"], []).append(file)
    return found


def _check_shards(folder: Path, files: list[Path]) -> None:
    """Raise ModelNotFoundError if a shard is missing, or the index that says what each contains."""
    shards = [file for file in files if re.search(_SHARD, file.name)]
    missing = [
        name
        for file in shards
        for number in range(1, int(re.findall(r"\d{5}", file.name)[-1]) + 1)
        if not (folder / (name := re.sub(r"-\d{5}-of", f"-{number:05}-of", file.name))).is_file()
    ]
    if shards and not missing and not list(folder.glob("*.safetensors.index*.json")):
        missing = ["the index (….safetensors.index.json) of the shards"]
    if missing and len(shards) == len(files):
        raise ModelNotFoundError.advised(
            f"{folder} lacks {missing[0]}", "download the checkpoint again", path=folder
        )


def _check_numbers(files: list[Path]) -> None:
    """Raise UnsupportedModelError for quantised weights, which mean nothing without the factors beside them."""
    for file in files:
        for name, dtype in _dtypes(file).items():
            if name.endswith(_FACTORS) or (name.endswith(".weight") and dtype in _WHOLE_NUMBERS):
                raise UnsupportedModelError.advised(
                    f"{file} is quantised ({name} is of the type {dtype})",
                    "use a checkpoint with floating-point weights; sdrt export --dtype int8 quantises by itself",
                    path=file,
                )


def _dtypes(file: Path) -> Mapping[str, str]:
    """The number type of each tensor. Only the header is read."""
    try:
        with safe_open(file, framework="pt") as handle:
            return {key: handle.get_slice(key).get_dtype() for key in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _incomplete(file, error) from error


def _incomplete(file: Path, error: Exception) -> IntegrityError:
    return IntegrityError.advised(
        f"{file} is not a complete safetensors file ({error})", "download it again", path=file
    )


def link_name(file: Path) -> str:
    """Return the name under which a loader that asks for full precision finds a file of any variant.

    Shards keep their names, because the index refers to them.
    """
    if index := _INDEX.fullmatch(file.name):
        return f"{index['name']}.safetensors.index.json"
    if re.search(_SHARD, file.name):
        return file.name
    match = _NAME.fullmatch(file.name)
    return file.name.replace(f".{match['variant']}.", ".") if match and match["variant"] else file.name


def num_elements(file: Path) -> int:
    """Return the number of weights in a safetensors file. Only its header is read.

    Raises:
        IntegrityError: the file is damaged.
    """
    try:
        with safe_open(file, framework="pt") as handle:
            return sum(math.prod(handle.get_slice(key).get_shape()) for key in handle.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _incomplete(file, error) from error
