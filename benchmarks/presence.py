"""Which modules an interpreter has, asked of a process of its own.

    python benchmarks/presence.py --device cpu|cuda

says what is missing here to export, to run and to test, and how to bring it; it needs nothing but Python itself.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
from collections.abc import Sequence

__all__ = ["missing", "versions"]

REQUIRED = {
    "PIL": "pillow",
    "accelerate": "accelerate",
    "click": "click",
    "diffusers": "diffusers",
    "filelock": "filelock",
    "huggingface_hub": "huggingface_hub<1",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnx_ir": "onnx-ir",
    "onnxruntime": "onnxruntime-gpu",
    "onnxscript": "onnxscript",
    "platformdirs": "platformdirs",
    "psutil": "psutil",
    "pytest": "pytest",
    "rich": "rich",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers<=0.23.0",
    "torch": "torch",
    "transformers": "transformers<5",
}
"""Module → what pip calls it, without which there is nothing to compare."""
BENEATH = {
    "anyio": "anyio",
    "certifi": "certifi",
    "charset_normalizer": "charset-normalizer",
    "flatbuffers": "flatbuffers",
    "fsspec": "fsspec",
    "google.protobuf": "protobuf",
    "h11": "h11",
    "httpcore": "httpcore",
    "httpx": "httpx",
    "idna": "idna",
    "importlib_metadata": "importlib_metadata",
    "iniconfig": "iniconfig",
    "markdown_it": "markdown-it-py",
    "mdurl": "mdurl",
    "ml_dtypes": "ml_dtypes",
    "packaging": "packaging",
    "pluggy": "pluggy",
    "pygments": "pygments",
    "regex": "regex",
    "requests": "requests",
    "tqdm": "tqdm",
    "typing_extensions": "typing_extensions",
    "urllib3": "urllib3",
    "yaml": "pyyaml",
    "zipp": "zipp",
}
"""What those need in turn: pip does not look after it where it is told to leave torch alone."""
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
    return f"missing here: module {', '.join(lacking)}" if lacking else None


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


def _on_cuda() -> list[str]:
    """What is wrong with CUDA here, as torch and ONNX Runtime see it."""
    script = (
        "import torch, onnxruntime as o\n"
        "print(('' if torch.cuda.is_available() else 'torch finds no CUDA device. ')"
        " + ('' if 'CUDAExecutionProvider' in o.get_available_providers() else"
        " 'this onnxruntime has no CUDA: give --parts, or install onnxruntime-gpu and no other onnxruntime.'))"
    )
    try:
        said = _ask(sys.executable, script)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().rpartition("\n")[2]
    return [said] if said else []


def _lacking() -> list[str]:
    known = REQUIRED | BENEATH
    lacking = json.loads(_ask(sys.executable, _FIND, *known))
    if not lacking:
        return []
    packages = " ".join(f"'{known[name]}'" for name in lacking)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return [
        f"missing modules: {', '.join(lacking)}",
        "where there is a network: pip download --no-deps --only-binary=:all: --platform manylinux_2_28_x86_64 "
        f"--platform manylinux_2_17_x86_64 --python-version {python} -d WHEELS {packages}",
        "and here: benchmarks/gpu.sh --wheels WHEELS (onnxruntime-gpu also as --parts; torch is never among them)",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    problems = _lacking() or (_on_cuda() if options.device == "cuda" else [])
    print("\n".join(problems) or "nothing is missing")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
