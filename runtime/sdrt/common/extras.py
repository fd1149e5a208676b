"""The extras of this distribution: which modules they bring, and the command that installs them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

__all__ = ["EXTRAS", "install_command", "missing_modules"]

EXTRAS: Mapping[str, str] = {
    "onnxruntime": "cpu",
    "optimum": "optimum",
    **dict.fromkeys(("matplotlib", "pynvml"), "benchmark"),
    **dict.fromkeys(
        ("accelerate", "diffusers", "onnx", "onnx_ir", "onnxscript", "safetensors", "torch", "transformers"),
        "export",
    ),
}
"""Top-level module → extra of `sdrt` that brings it."""


def missing_modules(extra: str) -> list[str]:
    """Modules of `extra` that are not installed; nothing is imported to find out."""
    return [name for name, owner in EXTRAS.items() if owner == extra and find_spec(name) is None]


def install_command(extra: str) -> str:
    """What to type for `extra`, from where sdrt itself came: a checkout's extras are not an index's."""
    folder, editable = _checkout()
    return f"pip install {'-e ' if editable else ''}'{folder or 'sdrt'}[{extra}]'"


def _checkout() -> tuple[Path | None, bool]:
    """The folder that pip installed sdrt from, of which it leaves a record (PEP 610), and whether editable."""
    # Here, because they take longer to import than all of `sdrt export --help`.
    from importlib import metadata
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        record = json.loads(metadata.distribution("sdrt").read_text("direct_url.json") or "{}")
        folder = Path(url2pathname(urlsplit(record["url"]).path))
        is_there = (folder / "pyproject.toml").is_file()
        return (folder, bool(record["dir_info"].get("editable"))) if is_there else (None, False)
    except (metadata.PackageNotFoundError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, False
