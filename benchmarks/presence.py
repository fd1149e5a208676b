"""Which modules an interpreter has, asked of a process of its own.

    python benchmarks/presence.py --device cpu|cuda

says what is missing here to export, to run and to test, or of another version, and how to bring it; then whether ONNX
Runtime runs a graph on the device. It needs nothing but Python itself.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence

__all__ = ["REQUIRED", "WITH_CUDA", "fits", "missing", "versions"]

REQUIRED = {
    "PIL": "pillow>=10.3",
    "accelerate": "accelerate>=1.0",
    "click": "click>=8.2",
    "diffusers": "diffusers>=0.36",
    "filelock": "filelock>=3.15",
    "huggingface_hub": "huggingface_hub>=0.34,<1",
    "numpy": "numpy>=1.26",
    "onnx": "onnx>=1.18",
    "onnx_ir": "onnx-ir>=0.1.12",
    "onnxruntime": "onnxruntime-gpu>=1.22",
    "onnxscript": "onnxscript>=0.5.4",
    "platformdirs": "platformdirs>=4",
    "psutil": "psutil>=6",
    "pytest": "pytest>=8.3",
    "rich": "rich>=13.7",
    "safetensors": "safetensors>=0.5",
    "tokenizers": "tokenizers>=0.21,<=0.23.0",
    "torch": "torch>=2.9",
    "transformers": "transformers>=4.56,<5",
}
"""Module → what pip calls it and which versions will do, without which there is nothing to compare."""
WITH_CUDA = {"pynvml": "nvidia-ml-py>=12.535"}
"""The same where the device is a GPU: asking `nvidia-smi` instead misses peaks of its memory."""
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


_CUDA_VERSIONS = """
import json
import torch
from onnxruntime.capi import build_and_package_info as package
print(json.dumps({
    "torch": [torch.__version__, torch.version.cuda, torch.cuda.is_available()],
    "onnxruntime": [package.package_name, getattr(package, "cuda_version", "")],
}))
"""
# torch stays out: it loads CUDA's libraries, and ONNX Runtime would find them in the same process only.
_PROBE = """
import contextlib, sys
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
provider, domain, operator, kind, shape = {
    "cuda": ("CUDAExecutionProvider", "com.microsoft", "NhwcConv", TensorProto.FLOAT16, (1, 3, 4, 8)),
    "cpu": ("CPUExecutionProvider", "", "Conv", TensorProto.FLOAT, (1, 8, 3, 4)),
}[sys.argv[1]]
if hasattr(ort, "preload_dlls") and sys.argv[1] == "cuda":
    with contextlib.redirect_stdout(sys.stderr):
        ort.preload_dlls()
if provider not in ort.get_available_providers():
    sys.exit(f"onnxruntime {ort.__version__} has no {provider}, only {', '.join(ort.get_available_providers())}: give "
             "--parts, or install onnxruntime-gpu and no other onnxruntime")
dtype = helper.tensor_dtype_to_np_dtype(kind)
weight = np.full((8, *(1 if n != 8 else 8 for n in shape[1:])), 0.25, dtype)
node = helper.make_node(operator, ["x", "w"], ["y"], domain=domain, kernel_shape=[1, 1])
ports = [helper.make_tensor_value_info(name, kind, shape) for name in "xy"]
values = [helper.make_tensor("w", kind, weight.shape, weight.tobytes(), raw=True)]
graph = helper.make_graph([node], "probe", ports[:1], ports[1:], values)
opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
options = ort.SessionOptions()
if sys.argv[1] != "cpu":
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
session = ort.InferenceSession(model.SerializeToString(), options, providers=[provider])
if session.get_providers()[0] != provider:
    sys.exit(f"onnxruntime {ort.__version__} took {session.get_providers()[0]} in place of {provider}")
(y,) = session.run(None, {"x": np.ones(shape, dtype)})
if not (y == 2).all():
    sys.exit(f"{operator} on {provider} is wrong: expected 2 everywhere, got {y.min()} to {y.max()}")
"""
_LOADER = re.compile(r"Failed to load library \S*?([^/\s]+) with error: (.*)")


def _not_running(device: str) -> list[str]:
    """Why ONNX Runtime does not run a graph of one node on `device`, in a process without torch; and where to look."""
    try:
        _ask(sys.executable, _PROBE, device)
    except subprocess.CalledProcessError as error:
        told = dict.fromkeys(f"{library}: {reason}" for library, reason in _LOADER.findall(error.stderr))
        last = error.stderr.strip().rpartition("\n")[2]
        return [f"ONNX Runtime runs no graph on {device}: {'; '.join(told) or last}", *_loader_help(told)]
    return []


def _loader_help(told: Iterable[str]) -> list[str]:
    if not any(told):
        return []
    return [
        "LD_LIBRARY_PATH has to name the folders of CUDA's and cuDNN's libraries: benchmarks/libraries.py prints them"
    ]


def _on_cuda() -> list[str]:
    """What is wrong with CUDA here, as torch and ONNX Runtime see it."""
    try:
        found = json.loads(_ask(sys.executable, _CUDA_VERSIONS))
    except subprocess.CalledProcessError as error:
        return [error.stderr.strip().rpartition("\n")[2]]
    version, cuda, works = found["torch"]
    package, built_for = found["onnxruntime"]
    problems = [] if works else [f"torch {version} (CUDA {cuda or 'none'}) finds no CUDA device"]
    problems += _not_running("cuda")
    majors = [(text or "none").partition(".")[0] for text in (cuda, built_for)]
    if problems and majors[0] != majors[1]:
        # Not wrong in itself: CUDA of both versions may be here.
        problems.append(
            f"{package} was built for CUDA {built_for or 'none'}, torch {version} brings CUDA {cuda or 'none'}: "
            "expected the same major version; onnxruntime-gpu 1.26 and before take CUDA 12, 1.27 and later CUDA 13"
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
    """Modules that are missing and packages of a version that will not do, and how to bring them."""
    required = REQUIRED | (WITH_CUDA if device == "cuda" else {})
    known = required | BENEATH
    absent = json.loads(_ask(sys.executable, _FIND, *known))
    # ONNX Runtime's distribution has several names; the probe asks the module.
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
    problems = _lacking(options.device) or (_on_cuda() if options.device == "cuda" else _not_running("cpu"))
    print("\n".join(problems) or "nothing is missing")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
