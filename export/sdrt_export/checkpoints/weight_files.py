"""The safetensors files of a checkpoint's component: whole or in shards, in full precision or a variant."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdrt.common.file_kind import PICKLES
from sdrt.common.safetensors_file import SafetensorsFile, read_header
from sdrt.errors import IntegrityError, ModelNotFoundError, UnsupportedModelError
from sdrt_export.checkpoints.shards import check_index

__all__ = ["Weights", "check_numbers", "find_weights", "link_name", "num_elements"]

_SHARD = r"-\d{5}-of-\d{5}"
# diffusers put the variant behind the number of the shard until version 0.28, and puts it before the number since then.
_NAME = re.compile(rf"(?P<stem>[^.]+?)(?:{_SHARD})?(?:\.(?P<variant>\w+))?(?:{_SHARD})?\.safetensors")
_INDEX = re.compile(r"(?P<name>[^.]+)(?:\.(?P<first>\w+))?\.safetensors\.index(?:\.(?P<last>\w+))?\.json")
# The names that the libraries give their files. A folder may have a text encoder under both names, or a LoRA beside it.
_STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
# The most precise first. Other variants, such as "non_ema", hold other weights.
_VARIANTS = (None, "fp16", "bf16")
_NO_REALS = frozenset({"BOOL", "C64", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"})
# The names that bitsandbytes, ComfyUI, quanto and torchao give the factors of quantised weights.
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


def find_weights(folder: Path, library: str) -> Weights:
    """Find the weights of one component, in full precision if there are any, else in fp16, else in bf16.

    Args:
        folder: the component's folder.
        library: the library of its class, which says how the files are called.

    Raises:
        UnsupportedModelError: there are only pickles, or weights are quantised.
        ModelNotFoundError: there are no weights, or a shard is missing.
        IntegrityError: a file is damaged.
    """
    found = _by_variant(folder, _STEMS[library])
    for variant in _VARIANTS:
        if variant in found:
            files = _whole_or_shards(folder, found[variant], variant)
            check_numbers(files)
            return Weights(files=files, variant=variant)
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


def _by_variant(folder: Path, stem: str) -> Mapping[str | None, list[Path]]:
    """The files called `stem`; if there are none, those of the only other name."""
    matches = {
        file: match for file in sorted(folder.glob("*.safetensors")) if (match := _NAME.fullmatch(file.name))
    }
    stems = {match["stem"] for match in matches.values()}
    if stem not in stems and len(stems) > 1:
        raise ModelNotFoundError.expected(
            f"{folder} has weights of several names ({', '.join(sorted(stems))})",
            f"{stem}.safetensors",
            path=folder,
        )
    found: dict[str | None, list[Path]] = {}
    for file, match in matches.items():
        if stem not in stems or match["stem"] == stem:
            found.setdefault(match["variant"], []).append(file)
    return found


def _whole_or_shards(folder: Path, files: list[Path], variant: str | None) -> list[Path]:
    """The whole file if there is one, else all shards.

    Raises ModelNotFoundError if a shard is missing, or the index that says what each contains, and IntegrityError if
    the index is wrong.
    """
    shards = [file for file in files if re.search(_SHARD, file.name)]
    if len(shards) < len(files):
        return [file for file in files if file not in shards]
    missing = [
        name
        for file in shards
        for number in range(1, int(re.findall(r"\d{5}", file.name)[-1]) + 1)
        if not (folder / (name := re.sub(r"-\d{5}-of", f"-{number:05}-of", file.name))).is_file()
    ]
    index = _index_of(folder, variant)
    if index is None:
        missing.append(
            f"the index (….safetensors.index{f'.{variant}' if variant else ''}.json) of the shards"
        )
    if missing or index is None:
        raise ModelNotFoundError.advised(
            f"{folder} lacks {missing[0]}", "download the checkpoint again", path=folder
        )
    check_index(index, [_header(file) for file in shards])
    return shards


def _index_of(folder: Path, variant: str | None) -> Path | None:
    """The index of a variant's shards."""
    for file in sorted(folder.glob("*.safetensors.index*.json")):
        match = _INDEX.fullmatch(file.name)
        if match and (match["last"] or match["first"]) == variant:
            return file
    return None


def check_numbers(files: list[Path]) -> None:
    """Raise UnsupportedModelError for quantised weights, which mean nothing without the factors beside them."""
    for file in files:
        for name, entry in _header(file).tensors.items():
            if name.endswith(_FACTORS) or (name.endswith((".weight", ".bias")) and entry.dtype in _NO_REALS):
                raise UnsupportedModelError.advised(
                    f"{file} is quantised ({name} is of the type {entry.dtype})",
                    "use a checkpoint with floating-point weights; sdrt export --dtype int8 quantises by itself",
                    path=file,
                )


def _header(file: Path) -> SafetensorsFile:
    """A file's header. Raises IntegrityError for a damaged one."""
    try:
        return read_header(file)
    except UnsupportedModelError as error:
        reason = re.search(r"\((.*)\)", str(error))
        if reason is None:
            raise IntegrityError(str(error), path=file, fits=error.fits) from error
        raise _incomplete(file, reason[1]) from error
    except OSError as error:
        raise _incomplete(file, error.strerror or str(error)) from error


def _incomplete(file: Path, reason: str) -> IntegrityError:
    return IntegrityError.advised(
        f"{file} is not a complete safetensors file ({reason})", "download it again", path=file
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
    return sum(math.prod(entry.shape) for entry in _header(file).tensors.values())
