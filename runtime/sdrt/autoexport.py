"""Torch checkpoints given where a model folder is expected: exported once into the cache, then reused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrt.config import Notices
from sdrt.errors import ExportError, ModelNotFoundError
from sdrt.manifest import MANIFEST_NAME
from sdrt.model import ModelFolder, cache_dir

__all__ = ["DTYPE", "Source", "export_once"]

DTYPE = "fp32"
_NEEDED = ("torch", "diffusers", "transformers", "onnx", "onnx_ir", "onnxscript", "safetensors")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A torch checkpoint: a folder (then `commit` is None), or a hub id whose configs are in `configs`."""

    name: str
    commit: str | None
    configs: Path
    token: str | bool | None = None


def export_once(source: Source, *, target: str, notices: Notices, reporter: Any = None) -> ModelFolder:
    """The exported `source`, from the cache if it was exported before.

    Raises `ModelNotFoundError` naming the commands to run when the export extra is not installed.
    """
    name = source.name.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
    output = cache_dir() / "exported" / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}-{_key(source, target)}"
    if not (output / MANIFEST_NAME).is_file():
        _require_exporter(source.name)
        notices.inform(f"exporting {source.name} to {output}, once")
        _export(source, output, target, reporter or _reporter(notices))
    return ModelFolder.open(output, name=name)


def _key(source: Source, target: str) -> str:
    from sdrt import __version__

    what = [source.name, source.commit] if source.commit else list(_file_stats(source.configs))
    text = json.dumps([what, target, DTYPE, __version__])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _file_stats(folder: Path) -> Iterator[tuple[str, int, int]]:
    for path in sorted(folder.resolve().rglob("*")):
        if path.is_file():
            stat = path.stat()
            yield str(path), stat.st_size, stat.st_mtime_ns


def _require_exporter(name: str) -> None:
    if all(importlib.util.find_spec(module) for module in _NEEDED):
        return
    raise ModelNotFoundError(
        f"{name} is a torch checkpoint, which must be exported first: pip install 'sdrt[export]', "
        f"then sdrt export {name} -o model/"
    )


def _export(source: Source, output: Path, target: str, reporter: Callable[[Any], None]) -> None:
    from sdrt_export import export_model

    origin: str | Path = source.name if source.commit else source.configs
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        export_model(
            origin,
            output,
            target=target,
            dtype=DTYPE,
            revision=source.commit,
            token=source.token,
            reporter=reporter,
        )
    except ExportError:
        # Another process may have finished the same export first; its result is as good.
        if not (output / MANIFEST_NAME).is_file():
            raise


def _reporter(notices: Notices) -> Callable[[Any], None]:
    def report(event: Any) -> None:
        notices.inform(f"{event.component}: {event.stage} {event.detail}".rstrip())

    return report
