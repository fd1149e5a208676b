"""This command says which modules an interpreter lacks; it asks a process of its own.

    python -m benchmarks check --device cpu|cuda

It lists what is missing to export, to run and to test, or is of another version, and how to bring it. Then it checks
whether ONNX Runtime runs a graph on the device. `python -m benchmarks.requirements` does the same, and needs nothing
but Python itself.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence

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
RECORDS = "onnxruntime-gpu>=1.30"
"""What the runtime itself takes where nothing is recorded is less; of these, all are for CUDA 13."""
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
    "onnxruntime": [package.package_name, getattr(package, "cuda_version", ""), package.__version__],
}))
"""
# torch stays out: it loads CUDA's libraries, and ONNX Runtime would find them in the same process only.
_PROBE = """
import contextlib, sys
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

device = sys.argv[1]
provider = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}[device]
if hasattr(ort, "preload_dlls") and device == "cuda":
    with contextlib.redirect_stdout(sys.stderr):
        ort.preload_dlls()
if provider not in ort.get_available_providers():
    sys.exit(f"onnxruntime {ort.__version__} has no {provider}, only {', '.join(ort.get_available_providers())}: give "
             "--parts, or install onnxruntime-gpu and no other onnxruntime")
dtype = {"cuda": np.float16, "cpu": np.float32}[device]
kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def session(node, shapes, weights):
    ports = [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()]
    values = [helper.make_tensor(name, kind, array.shape, array.tobytes(), raw=True) for name, array in weights.items()]
    made = helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph([node], "probe", ports, [made], values)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    if device != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    found = ort.InferenceSession(model.SerializeToString(), options, providers=[provider], enable_fallback=0)
    if found.get_providers()[0] != provider:
        sys.exit(f"onnxruntime {ort.__version__} took {found.get_providers()[0]} in place of {provider}")
    return found


def convolution(channels, out, side, stride, pixels):
    # The pixel in the middle, where no padding is seen, beside NumPy's.
    random, nhwc = np.random.default_rng(0), device == "cuda"
    weight = random.standard_normal((out, side, side, channels)).astype(dtype)
    x = random.standard_normal((2, pixels, pixels, channels)).astype(dtype)
    pad, at = (side - 1) // 2, pixels // (2 * stride)
    attributes = dict(kernel_shape=[side, side], strides=[stride] * 2, pads=[pad] * 4, group=1, dilations=[1, 1])
    name, domain = ("NhwcConv", "com.microsoft") if nhwc else ("Conv", "")
    node = helper.make_node(name, ["x", "w"], ["y"], domain=domain, **attributes)
    ordered = (lambda array: array) if nhwc else (lambda array: np.ascontiguousarray(array.transpose(0, 3, 1, 2)))
    y = session(node, {"x": ordered(x).shape}, {"w": ordered(weight)}).run(None, {"x": ordered(x)})[0]
    first = at * stride - pad
    seen = x[:, first : first + side, first : first + side].astype(np.float32)
    expected = np.einsum("nrsc,orsc->no", seen, weight.astype(np.float32))
    return (y[:, at, at] if nhwc else y[:, :, at, at]), expected


def attention(heads, width, queries, keys, form):
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal((2, length, heads, width)).astype(dtype) for length in (queries, keys, keys))
    flat = lambda array: array.reshape(*array.shape[:2], -1)
    if form == "packed":
        feeds = {"q": np.stack([q, k, v], 3)}
    elif form == "packed keys":
        feeds = {"q": flat(q), "k": np.stack([k, v], 3)}
    else:
        feeds = {"q": flat(q), "k": flat(k), "v": flat(v)}
    causal, scale = int(queries == keys == 77), width ** -0.5
    node = helper.make_node("MultiHeadAttention", [*feeds], ["y"], domain="com.microsoft", num_heads=heads,
                            scale=scale, unidirectional=causal)
    y = session(node, {name: array.shape for name, array in feeds.items()}, {}).run(None, feeds)[0]
    q, k, v = (array.transpose(0, 2, 1, 3).astype(np.float32) for array in (q, k, v))
    scores = q @ k.swapaxes(2, 3) * np.float32(scale)
    if causal:
        scores += np.triu(np.full((queries, keys), -1e9, np.float32), 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = (weights / weights.sum(-1, keepdims=True)) @ v
    return y, flat(expected.transpose(0, 2, 1, 3))


packed, packed_keys = ("packed", "packed keys") if device == "cuda" else ("apart", "apart")
cases = {}
# SD 1.5's odd ones: the first and last convolutions, a resampling one, one of the middle.
for channels, out, side, stride, pixels in ((4, 320, 3, 1, 64), (320, 4, 3, 1, 64), (3, 128, 3, 1, 64),
                                            (128, 3, 3, 1, 64), (8, 8, 1, 1, 64), (4, 4, 1, 1, 64),
                                            (128, 128, 4, 2, 64), (320, 320, 3, 2, 64), (640, 1280, 3, 1, 16)):
    cases[f"a convolution of {side}x{side}, {channels} to {out} channels, stride {stride}"] = (
        convolution, (channels, out, side, stride, pixels))
for heads, width, queries, keys, form in ((8, 40, 1024, 1024, packed), (8, 80, 1024, 1024, packed),
                                          (8, 160, 256, 256, packed), (8, 40, 1024, 77, packed_keys),
                                          (8, 160, 64, 77, packed_keys), (12, 64, 77, 77, packed),
                                          (1, 512, 1024, 1024, "apart")):
    cases[f"attention of {heads} heads of {width}, {queries} on {keys}, {form}"] = (
        attention, (heads, width, queries, keys, form))
wrong = []
for name, (run, given) in cases.items():
    try:
        y, expected = run(*given)
    except Exception as error:
        wrong.append(f"{name}: {' '.join(str(error).split())[:300]}")
        continue
    # float16 rounds the result by 5e-4 of it, and flash attention its weights; another layout is wrong by 1.
    error = np.inf
    if y.shape == expected.shape:
        error = np.abs(np.asarray(y, np.float32) - expected).max() / np.abs(expected).max()
    if not error < 0.01:
        wrong.append(f"{name}: differs from NumPy's by {error:.2g} of its largest value")
sys.exit("\\n".join(wrong) or None)
"""
_LOADER = re.compile(r"Failed to load library \S*?([^/\s]+) with error: (.*)")


def _not_running(device: str) -> list[str]:
    """Which of SD 1.5's operators ONNX Runtime does not run on `device`, in a process without torch; where to look."""
    try:
        _ask(sys.executable, _PROBE, device)
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
    """What fails to import though it is there: versions that do not bear one another, which no bound tells."""
    try:
        _ask(sys.executable, _IMPORTS)
    except subprocess.CalledProcessError as error:
        return [f"what is here does not work together: {error.stderr.strip().rpartition(chr(10))[2]}"]
    return []


def no_library(path: str, python: str) -> str | None:
    """Whether a package of `python` lacks a file, `package/…`: parts of an archive may leave some out. None if not."""
    here = json.loads(_ask(python, _LIBRARY, path))
    return None if here else f"missing here: {path}"


_LIBRARY = """
import importlib.util, json, pathlib, sys
package, _, rest = sys.argv[1].partition("/")
print(json.dumps(pathlib.Path(importlib.util.find_spec(package).origin).with_name(rest.split("/")[0]).joinpath(
    *rest.split("/")[1:]).is_file()))
"""


def no_compiler(python: str) -> str | None:
    """Why torch.compile cannot make kernels with `python`; None where it can."""
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
        "LD_LIBRARY_PATH has to name the folders of CUDA's and cuDNN's libraries: "
        "python -m benchmarks.libraries prints them"
    ]


def _on_cuda() -> list[str]:
    """What is wrong with CUDA here, as torch and ONNX Runtime see it."""
    try:
        found = json.loads(_ask(sys.executable, _CUDA_VERSIONS))
    except subprocess.CalledProcessError as error:
        return [error.stderr.strip().rpartition("\n")[2]]
    version, cuda, works = found["torch"]
    package, built_for, number = found["onnxruntime"]
    problems = [] if works else [f"torch {version} (CUDA {cuda or 'none'}) finds no CUDA device"]
    if not fits(number, RECORDS):
        problems.append(
            f"{package} is {number}: expected {RECORDS}, which records and replays (enable_cuda_graph)"
        )
    problems += _not_running("cuda")
    majors = [(text or "none").partition(".")[0] for text in (cuda, built_for)]
    if problems and majors[0] != majors[1]:
        # Not wrong in itself: CUDA of both versions may be here.
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
