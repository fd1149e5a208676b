"""The JSON record of a benchmark: settings, machine, every sample, and a format version."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.benchmark.configurations import PROMPT, Rules
from sdrt.benchmark.machine import facts, load_average
from sdrt.common.file_hash import sha256
from sdrt.common.messages import brief
from sdrt.errors import RequestError
from sdrt.model_folder.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    from sdrt.model_folder.model import Model

__all__ = ["FORMAT", "FORMAT_VERSION", "describe_model", "new_record", "read_record"]

FORMAT, FORMAT_VERSION = "sdrt-benchmark", 1
_MOST_SECONDS = 1e9
_STEP = ("wall", "unet", "guidance", "scheduler", "transfers")
_RECORD = "a record from sdrt benchmark --json"


def new_record(command: Sequence[str], model: Model, rules: Rules) -> dict[str, Any]:
    """A new record without measurements. The caller sets `complete` when all of them are in it."""
    from sdrt.common.version import __version__

    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "complete": False,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "sdrt": __version__,
        "command": list(command),
        "model": describe_model(model),
        "prompt": PROMPT,
        "rules": asdict(rules),
        "machine": facts(),
        "load_average": {"before": load_average(), "after": None},
        "measurements": [],
        "failed": [],
    }


def describe_model(model: Model) -> dict[str, Any]:
    """Facts that identify the model. The manifest contains the hashes of all files, so its hash covers them all.

    A checkpoint that runs in memory has no file with a manifest.
    """
    manifest, path = model.manifest, model.path / MANIFEST_NAME
    return {
        "name": model.name,
        **{key: getattr(manifest, key, None) for key in ("family", "target", "dtype", "opset", "exporter")},
        "source": dict(manifest.source) if manifest else None,
        "versions": dict(manifest.versions) if manifest else None,
        "manifest_sha256": sha256(path) if path.is_file() else None,
    }


def read_record(path: Path) -> dict[str, Any]:
    """Read a record that can be compared. Raises `RequestError` with the file name if it is not one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RequestError.expected(f"{path} is not JSON ({error})", _RECORD, path=path) from None
    except OSError as error:
        raise RequestError.expected(
            f"{path} cannot be read ({error.strerror or error})", _RECORD, path=path
        ) from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise RequestError.expected(f"{path} is not a benchmark record", _RECORD, path=path)
    version = record.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise RequestError.advised(
            f"{path} has format version {brief(version)}, and this sdrt reads versions up to "
            f"{FORMAT_VERSION}",
            "use a newer sdrt",
            path=path,
        )
    try:
        _check(record)
    except KeyError as error:
        raise RequestError(
            f"{path} is damaged: it lacks {error}; expected {_RECORD}", path=path, fits=_RECORD
        ) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise RequestError(
            f"{path} is damaged: it has {error}; expected {_RECORD}", path=path, fits=_RECORD
        ) from None
    return record


def _check(record: Mapping[str, Any]) -> None:
    """Raise if a value that a comparison needs is missing or of the wrong type."""
    for key, kind in (("model", dict), ("machine", dict), ("rules", dict), ("measurements", list)):
        _expect(record[key], kind)
    confidence = record["rules"]["confidence"]
    _number(confidence)
    if not 0 < confidence < 1:
        raise ValueError(f"{brief(confidence)} instead of a share")
    for gpu in _expect(record["machine"]["gpus"], list):
        _expect(gpu, dict)
    _expect(record["machine"]["versions"], dict)
    for measurement in record["measurements"]:
        _expect(_expect(measurement, dict)["settings"], dict)
        for key in ("width", "height", "batch"):
            _expect(measurement["settings"][key], int)
        generations = _expect(measurement["generations"], list)
        for one in (*generations, measurement["first_generation"]):
            _check_generation(one)
        for value in (measurement["load"], *_expect(measurement["first_pictures"], list)):
            _number(value)
        if not generations:
            raise ValueError("a measurement without generations")


def _check_generation(generation: Mapping[str, Any]) -> None:
    for key in ("total", "text_encoder", "vae_decoder"):
        _number(generation[key])
    steps = _expect(generation["steps"], list)
    if not steps:
        raise ValueError("a generation without steps")
    for step in steps:
        for key in _STEP:
            _number(step[key])


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{brief(value)} instead of a {kind.__name__}")
    return value


def _number(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{brief(value)} instead of a number")
    if not 0 <= value < _MOST_SECONDS:  # NaN is in no range
        raise ValueError(f"{brief(value)} instead of seconds")
