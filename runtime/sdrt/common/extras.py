"""The extras of this distribution: the modules they install, and the command that installs them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

__all__ = ["EXTRAS", "install_command", "is_installed", "missing_modules"]

EXTRAS: Mapping[str, str] = {
    "onnxruntime": "cpu",
    "optimum": "optimum",
    **dict.fromkeys(("matplotlib", "pynvml"), "benchmark"),
    "pyarrow": "batch",
    "onnx": "export",
    "ray": "ray",
    **dict.fromkeys(("fastapi", "multipart", "prometheus_client", "uvicorn"), "serve"),
    **dict.fromkeys(("diffusers", "torch", "transformers"), "verify"),
}
"""The extra of sdrt that installs each top-level module."""


def missing_modules(extra: str) -> list[str]:
    """The modules of `extra` that are not installed. Imports nothing."""
    return [name for name, owner in EXTRAS.items() if owner == extra and find_spec(name) is None]


def is_installed(package: str) -> bool:
    """Whether a package is installed. Imports nothing."""
    # Imported here, because the import is slow, and `sdrt export --help` does not need it.
    from importlib import metadata

    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def install_command(extra: str) -> str:
    """The pip command that installs `extra` from where sdrt itself came: the package index or a checkout."""
    folder, editable = _checkout()
    return f"pip install {'-e ' if editable else ''}'{folder or 'sdrt'}[{extra}]'"


def _checkout() -> tuple[Path | None, bool]:
    """The folder that pip installed sdrt from, as pip recorded it (PEP 610), and whether the install is editable."""
    # Imported here, because these modules take longer to import than `sdrt export --help` takes to run.
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
