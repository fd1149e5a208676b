"""By what a LoRA's product is multiplied: alpha / rank. A file's tensors, or its metadata, have the alpha.

diffusers writes the config of PEFT into a file's metadata, and PEFT itself into `adapter_config.json` beside the file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdrt.adapters.lora.modules import Module
from sdrt.common.messages import brief
from sdrt.common.safetensors_file import SafetensorsFile
from sdrt.errors import UnsupportedModelError

__all__ = ["Scales", "read_scales"]

_METADATA = "lora_adapter_metadata"
_CONFIG = "adapter_config.json"
_MOST_CONFIG = 1 << 20
_PEFT = "base_model.model."
_LOKR = "LOKR"
_LITERAL = re.compile(r"[\w.-]+")
_AGAIN = "download it again"


@dataclass(frozen=True)
class Scales:
    """The configs of PEFT that hold for a file, by prefixes such as "unet."; "" holds for all its keys."""

    path: Path
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def scale(self, module: Module, rank: int | None, alpha: float | None) -> float:
        """The scale of a module's product. `alpha` is that of the file's tensors.

        Without an alpha the scale is 1, as in all programs.

        Raises:
            UnsupportedModelError: the config is damaged.
        """
        config = self.configs.get(f"{module.component}.", self.configs.get("", {}))
        if rank is None and config.get("peft_type") == _LOKR:
            # PEFT divides by the rank that was asked for, also where it was too large to be used.
            rank = _rank(self.path, config, module.name)
        if rank is None:
            return 1.0
        if alpha is None:
            alpha = _of_module(self.path, config, "alpha_pattern", ("lora_alpha", "alpha"), module.name)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if config.get("use_rslora") is True else rank)


def _rank(path: Path, config: Mapping[str, Any], module: str) -> int | None:
    rank = _of_module(path, config, "rank_pattern", ("r",), module)
    if rank is not None and not (rank >= 1 and rank.is_integer()):
        raise _damaged(path, f"the rank of {brief(module)} is {rank:g}", "a whole number above 0")
    return None if rank is None else int(rank)


def _of_module(
    path: Path, config: Mapping[str, Any], patterns_key: str, keys: Sequence[str], module: str
) -> float | None:
    """A number of a module: that of the first pattern which is the end of its name, or the one for all."""
    patterns = config.get(patterns_key) or {}
    if not isinstance(patterns, dict):
        raise _damaged(path, f"{patterns_key} is {brief(patterns)}", "an object")
    for pattern, value in patterns.items():
        if _ends(path, patterns_key, pattern, module):
            return _number(path, f"{patterns_key} of {brief(pattern)}", value)
    for key in keys:
        if config.get(key) is not None:
            return _number(path, key, config[key])
    return None


def _ends(path: Path, patterns_key: str, pattern: str, module: str) -> bool:
    """PEFT takes a pattern for a regular expression, and writes names. A stranger's expression could take forever."""
    name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if not _LITERAL.fullmatch(name):
        raise _damaged(path, f"{patterns_key} has the expression {brief(pattern)}", "names of modules")
    return module == name or (module.endswith(f".{name}") and not pattern.startswith("^"))


def _number(path: Path, key: str, value: Any) -> float:
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        number = math.nan
    if not math.isfinite(number):
        raise _damaged(path, f"{key} is {brief(value)}", "a number")
    return number


def read_scales(file: SafetensorsFile) -> Scales:
    """Read the configs of PEFT in a file's metadata or beside it.

    Raises:
        UnsupportedModelError: they are damaged.
    """
    if _METADATA in file.metadata:
        return _in_metadata(file)
    if not any(key.startswith(_PEFT) for key in file.tensors):
        return Scales(file.path)
    config = file.path.with_name(_CONFIG)
    if config.is_file():
        return Scales(config, {"": _object(config, _read(config))})
    if any(key.endswith(".alpha") for key in file.tensors):
        return Scales(file.path)
    note = f"{file.path} has no alpha, which PEFT writes into {_CONFIG} beside it: without that file, alpha is the rank"
    return Scales(file.path, notes=[note])


def _in_metadata(file: SafetensorsFile) -> Scales:
    """diffusers puts the component before each key: `unet.lora_alpha`."""
    configs: dict[str, dict[str, Any]] = {}
    for key, value in _object(file.path, file.metadata[_METADATA]).items():
        component, dot, name = key.rpartition(".")
        configs.setdefault(component + dot, {})[name] = value
    return Scales(file.path, configs)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_MOST_CONFIG + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UnsupportedModelError.advised(f"{path} cannot be read ({error})", _AGAIN, path=path) from None


def _object(path: Path, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if len(text) <= _MOST_CONFIG else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UnsupportedModelError.advised(
            f"{path}: the config of PEFT is not a JSON object of at most {_MOST_CONFIG} bytes",
            _AGAIN,
            path=path,
        )
    return found


def _damaged(path: Path, problem: str, fits: str) -> UnsupportedModelError:
    return UnsupportedModelError.expected(f"{path}: in the config of PEFT, {problem}", fits, path=path)
