"""This command says what this machine lacks for the benchmarks.

    python -m benchmarks check --device cpu|cuda

It lists modules that are missing or have an unsuitable version, and how to get them. Then it checks whether ONNX
Runtime runs SD 1.5's operators on the device, and whether the packages work together. `python -m
benchmarks.requirements` does the same, and needs only Python itself.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.command_line import parser_of

__all__ = ["REQUIRED", "WITH_CUDA", "fits", "missing", "no_compiler", "no_library", "versions"]

REQUIRED = {
    "PIL": "pillow>=10.3",
    "accelerate": "accelerate>=1.0",
    "click": "click>=8.2",
    "diffusers": "diffusers>=0.36,<0.40",
    "filelock": "filelock>=3.15",
    "huggingface_hub": "huggingface_hub>=0.34,<1",
    "numpy": "numpy>=1.26",
    "onnx": "onnx>=1.18",
    "onnx_ir": "onnx-ir>=0.1.12",
    "onnxruntime": "onnxruntime-gpu>=1.22",
    "platformdirs": "platformdirs>=4",
    "psutil": "psutil>=6",
    "pytest": "pytest>=8.3",
    "rich": "rich>=13.7",
    "safetensors": "safetensors>=0.5",
    "tokenizers": "tokenizers>=0.21,<=0.23.0",
    "torch": "torch>=2.9",
    "transformers": "transformers>=4.56,<5",
}
"""Module → its requirement for pip. Without these modules there is nothing to compare."""
RECORDS = "onnxruntime-gpu>=1.30"
"""The requirement for recordings. Otherwise, the runtime accepts older versions. All of these are for CUDA 13."""
WITH_CUDA = {"pynvml": "nvidia-ml-py>=12.535"}
"""The module for recordings on a GPU. Without it, `nvidia-smi` reports its memory and misses peaks."""
INDIRECT = {
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
"""What the required modules need. pip does not install it with --no-deps, which keeps torch as it is."""
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
    except Exception:  # find_spec imports the packages above a module, which may fail in any way
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
    """A message with the modules that `python` lacks; None if it has all of them."""
    try:
        lacking = json.loads(_ask(python, _FIND, *modules))
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{python} does not run: {error}"
    return f"missing here: module {', '.join(lacking)}" if lacking else None


def versions(python: str) -> dict[str, str]:
    """Package → version, of the `PACKAGES` that are installed."""
    found: dict[str, str] = json.loads(_ask(python, _VERSIONS, *PACKAGES))
    return found


@functools.cache
def _ask(python: str, script: str, *arguments: str) -> str:
    return (
        subprocess.run([python, "-c", script, *arguments], capture_output=True, text=True, check=True)
        .stdout.strip()
        .rpartition("\n")[2]
    )


_CUDA_VERSIONS = """
import json
import torch
from onnxruntime.capi import build_and_package_info as package
print(json.dumps({
    "torch": [torch.__version__, torch.version.cuda, torch.cuda.is_available()],
    "onnxruntime": [package.package_name, getattr(package, "cuda_version", ""), package.__version__],
}))
"""
_PROBE = Path(__file__).with_name("operator_probe.py")
_LOADER = re.compile(r"Failed to load library \S*?([^/\s]+) with error: (.*)")


def _not_running(device: str) -> list[str]:
    """The operators of SD 1.5 that ONNX Runtime does not run on `device`, in a process without torch, and a hint."""
    try:
        _ask(sys.executable, _PROBE.read_text(encoding="utf-8"), device)
    except subprocess.CalledProcessError as error:
        told = dict.fromkeys(f"{library}: {reason}" for library, reason in _LOADER.findall(error.stderr))
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        cases = [line for line in lines if re.match(r"(a convolution|attention) of ", line)]
        reasons = ["; ".join(told)] if told else cases or lines[-1:]
        return [*(f"ONNX Runtime on {device}: {reason}" for reason in reasons), *_loader_help(told)]
    return []


_IMPORTS = """
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel
import sdrt, sdrt_export
sdrt.StableDiffusionPipeline, sdrt_export.export_model
"""


def _not_importing() -> list[str]:
    """Packages that are installed but do not import together, which no version bound shows."""
    try:
        _ask(sys.executable, _IMPORTS)
    except subprocess.CalledProcessError as error:
        return [f"the installed packages do not work together: {error.stderr.strip().rpartition(chr(10))[2]}"]
    return []


def no_library(path: str, python: str) -> str | None:
    """A message if a package of `python` lacks the file `package/…`, which parts of an archive may leave out."""
    here = json.loads(_ask(python, _LIBRARY, path))
    return None if here else f"missing here: {path}"


_LIBRARY = """
import importlib.util, json, pathlib, sys
package, _, rest = sys.argv[1].partition("/")
print(json.dumps(pathlib.Path(importlib.util.find_spec(package).origin).with_name(rest.split("/")[0]).joinpath(
    *rest.split("/")[1:]).is_file()))
"""


def no_compiler(python: str) -> str | None:
    """Why torch.compile cannot build kernels with `python`; None if it can."""
    lacking = json.loads(_ask(python, _COMPILER))
    return f"missing here: {', '.join(lacking)}" if lacking else None


_COMPILER = """
import json, os, shutil, sysconfig
found = {
    "a C compiler (cc, gcc or clang)": os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang"))),
    "Python's headers (python3-dev)": os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h")),
}
print(json.dumps([name for name, here in found.items() if not here]))
"""


def _loader_help(told: Iterable[str]) -> list[str]:
    if not any(told):
        return []
    return [
        "LD_LIBRARY_PATH must list the folders of the CUDA and cuDNN libraries: "
        "python -m benchmarks.libraries prints them"
    ]


def _on_cuda() -> list[str]:
    """Problems with CUDA that torch and ONNX Runtime report."""
    try:
        found = json.loads(_ask(sys.executable, _CUDA_VERSIONS))
    except subprocess.CalledProcessError as error:
        return [error.stderr.strip().rpartition("\n")[2]]
    version, cuda, works = found["torch"]
    package, built_for, number = found["onnxruntime"]
    problems = [] if works else [f"torch {version} (CUDA {cuda or 'none'}) finds no CUDA device"]
    if not fits(number, RECORDS):
        problems.append(f"{package} is {number}: expected {RECORDS}, for recordings (enable_cuda_graph)")
    problems += _not_running("cuda")
    majors = [(text or "none").partition(".")[0] for text in (cuda, built_for)]
    if problems and majors[0] != majors[1]:
        # Different versions are fine if both are installed.
        problems.append(
            f"{package} was built for CUDA {built_for or 'none'}, torch {version} brings CUDA {cuda or 'none'}: "
            "expected the same major version; onnxruntime-gpu 1.27 and later take CUDA 13"
        )
    return problems


def fits(version: str, requirement: str) -> bool:
    """Whether a version is within the bounds of a requirement, such as "torch>=2.9" or "transformers>=4.56,<5"."""
    own = _numbers(version)
    for sign, bound in re.findall(r"([<>]=?)([\d.]+)", requirement):
        wanted = _numbers(bound)
        width = max(len(own), len(wanted))
        a, b = ((*numbers, *[0] * (width - len(numbers))) for numbers in (own, wanted))
        if not {">=": a >= b, "<=": a <= b, "<": a < b, ">": a > b}[sign]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.match(r"[\d.]*", version)[0].split(".") if number)  # type: ignore[index]


def _name(requirement: str) -> str:
    return re.split("[<>=]", requirement)[0]


def _lacking(device: str) -> list[str]:
    """Missing modules and packages with unsuitable versions, and how to get them."""
    required = REQUIRED | (WITH_CUDA if device == "cuda" else {})
    known = required | INDIRECT
    absent = json.loads(_ask(sys.executable, _FIND, *known))
    # ONNX Runtime's distribution has several names, so the probe checks its module.
    named = {
        _name(text): module for module, text in required.items() if module not in (*absent, "onnxruntime")
    }
    found: dict[str, str] = json.loads(_ask(sys.executable, _VERSIONS, *named))
    odd = [name for name, version in found.items() if not fits(version, known[named[name]])]
    wrong = [f"{name} is {found[name]}: expected {known[named[name]]}" for name in odd]
    lacking = [*absent, *(named[name] for name in odd)]
    if not lacking:
        return []
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    packages = " ".join(f"'{known[module]}'" for module in lacking)
    return [
        *([f"missing modules: {', '.join(absent)}"] if absent else []),
        *wrong,
        "on a machine with a network: pip download --no-deps --only-binary=:all: --platform manylinux_2_28_x86_64 "
        f"--platform manylinux_2_17_x86_64 --python-version {python} -d WHEELS {packages}",
        "then here: benchmarks/gpu.sh --wheels WHEELS (or onnxruntime-gpu with --parts; never torch)",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("check", __doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args(arguments)
    problems = _lacking(options.device)
    if not problems:
        problems = _on_cuda() if options.device == "cuda" else _not_running("cpu")
        problems += _not_importing()
    print("\n".join(problems) or "nothing is missing")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
