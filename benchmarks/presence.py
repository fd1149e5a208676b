"""Which modules an interpreter has, asked of a process of its own."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Sequence

__all__ = ["missing", "versions"]

PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "diffusers",
    "transformers",
    "optimum",
    "optimum-onnx",
    "onnx",
    "numpy",
)
_FIND = """
import importlib.util, json, sys
def found(name):
    try:
        return importlib.util.find_spec(name) is not None
    except Exception:
        return False
print(json.dumps([name for name in sys.argv[1:] if not found(name)]))
"""
_VERSIONS = """
import importlib.metadata, json, sys
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
print(json.dumps({name: version(name) for name in sys.argv[1:] if version(name)}))
"""


def missing(modules: Sequence[str], python: str) -> str | None:
    """The modules that `python` lacks, in words; None where it has all of them."""
    try:
        lacking = json.loads(_ask(python, _FIND, *modules))
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{python} does not run: {error}"
    return f"no module {', '.join(lacking)}" if lacking else None


def versions(python: str) -> dict[str, str]:
    """Of the packages that matter, those that are installed."""
    found: dict[str, str] = json.loads(_ask(python, _VERSIONS, *PACKAGES))
    return found


@functools.cache
def _ask(python: str, script: str, *arguments: str) -> str:
    return (
        subprocess.run([python, "-c", script, *arguments], capture_output=True, text=True, check=True)
        .stdout.strip()
        .rpartition("\n")[2]
    )
