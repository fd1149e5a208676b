"""Options of execution providers: which a user may set, and what ONNX Runtime is passed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import RequestError
from sdrt.onnx.option_values import (
    Option,
    choice_option,
    device_option,
    expanded,
    flag_option,
    folder_option,
    number_option,
    size_option,
)

__all__ = [
    "CUDA",
    "OPENVINO",
    "TENSORRT",
    "Setting",
    "cuda_options",
    "openvino_options",
    "plain_options",
    "read_options",
    "tensorrt_options",
]

Options = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a provider's options follow from besides what the user set.

    `threads` of the CPU, None for every core; `dtype` of the weights, "float32" or "float16"; `compiled`, a folder of
    this graph's own for what the provider compiles, None where nothing can be kept; `repeats`, whether it runs many
    times at one shape.
    """

    threads: int | None = None
    dtype: str = "float32"
    compiled: Path | None = None
    repeats: bool = False


def read_options(provider: str, known: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, str]:
    """`given` as ONNX Runtime takes it. Raises `RequestError` for an unknown name or a wrong value."""
    if not isinstance(given, Mapping):
        raise RequestError(
            f"provider_options is {brief(given)}: expected names and values",
            argument="provider_options",
            provider=provider,
            fits="names and values",
        )
    for name in given:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise RequestError(
                f"provider {provider} has no option {brief(name)}: {takes}",
                argument=str(name),
                provider=provider,
                fits=", ".join(known),
            )
    return {name: _read(provider, name, known[name], given[name]) for name in given}


def _read(provider: str, name: str, option: Option, value: object) -> str:
    if isinstance(value, Mapping):
        value = json.dumps(value, default=str)
    text = str(value) if isinstance(value, (str, int, float, Path)) else ""
    try:
        return option.read(text.strip())
    except ValueError as error:
        reason = f" ({error})" if str(error) else ""
        raise RequestError(
            f"{provider}'s option {name} is {brief(value)}{reason}: expected {option.expected}",
            argument=name,
            provider=provider,
            fits=option.expected,
        ) from None


# CUDA and TensorRT.

CUDA: Mapping[str, Option] = {
    "gpu_mem_limit": size_option(
        "limits the device memory in one session's arena; each component has its own session"
    ),
    "arena_extend_strategy": choice_option(
        "how much the arena grows at a time", "kSameAsRequested", "kNextPowerOfTwo"
    ),
    # DEFAULT is not offered: it is cuDNN's own fallback, which ONNX Runtime itself calls extremely slow. Neither is the
    # limit of the workspace: no cuDNN 9 kernel reads it.
    "cudnn_conv_algo_search": choice_option(
        "how cuDNN chooses a convolution's algorithm when its shape changes: with its heuristic B, which knows more, "
        "or A, which is faster",
        "EXHAUSTIVE",
        "HEURISTIC",
    ),
    "sdpa_kernel": number_option(
        "which attention kernels ONNX Runtime may use, as a sum: 1 flash, 2 memory efficient, 8 cuDNN, and TensorRT's "
        "4 fused, 32 flash, 64 cross, 128 causal; it may always use the unfused ones (16); 0 leaves the choice to it",
        0,
        255,
    ),
    "use_tf32": flag_option(
        "lets matrix products and convolutions in fp32 round to TF32; without it, convolutions in fp16 do not use the "
        "Tensor Cores either"
    ),
    "prefer_nhwc": flag_option("uses channels-last kernels where there are any"),
    "fuse_conv_bias": flag_option("computes convolution, bias and activation in one cuDNN graph"),
    "enable_cuda_graph": flag_option(
        "records the U-Net's kernel launches once per shape and replays them; needs `--target cuda` and "
        "onnxruntime-gpu 1.30; not measured yet"
    ),
}
TENSORRT: Mapping[str, Option] = {
    "trt_fp16_enable": flag_option("allows fp16 kernels; sdrt sets it for models exported in fp16"),
    "trt_max_workspace_size": size_option("limits the device memory that one layer may use as workspace"),
    "trt_builder_optimization_level": number_option("how long TensorRT searches for fast kernels", 0, 5),
    "trt_auxiliary_streams": number_option("more streams take more memory; -1 lets TensorRT choose", -1, 64),
    "trt_context_memory_sharing_enable": flag_option("lets subgraphs share their working memory"),
    "trt_layer_norm_fp32_fallback": flag_option("computes layer norms in fp32 where the rest is fp16"),
    "trt_load_user_initializer": flag_option(
        "passes the weights beside the graph, so that graphs above 2 GB work (onnxruntime 1.23, TensorRT 10.13)"
    ),
    "trt_engine_cache_path": folder_option("keeps engines here instead of in the user's cache"),
    "trt_timing_cache_path": folder_option("keeps kernel timings here instead of in the user's cache"),
}


def plain_options(given: Options, setting: Setting) -> dict[str, str]:
    """What the user set, and nothing else."""
    return dict(given)


def cuda_options(given: Options, setting: Setting) -> dict[str, str]:
    """CUDA's: what runs once is not worth a recording, which keeps its memory for good."""
    return {key: value for key, value in given.items() if setting.repeats or key != "enable_cuda_graph"}


def tensorrt_options(given: Options, setting: Setting) -> dict[str, str]:
    """TensorRT's: fp16 kernels for fp16 weights, and engines and timings that are kept.

    No shape profiles: the engine is built in the first run, for the sizes of that run, and again for a wider range
    when others come. A profile holds for one graph's inputs, while these options go to all of a model's graphs.
    """
    ours = {"trt_fp16_enable": str(setting.dtype == "float16")}
    if setting.compiled is not None:
        # Timings are of kernels, not of weights: every model of this version shares them.
        paths = {"engine": setting.compiled, "timing": setting.compiled.parent}
        ours |= {f"trt_{kind}_cache_path": str(path) for kind, path in paths.items()}
    ours |= given
    if setting.compiled is not None and "trt_engine_cache_path" in given:
        # Engines are found by names and shapes, not by weights: wherever they are, those of others have other folders.
        ours["trt_engine_cache_path"] = str(Path(given["trt_engine_cache_path"]) / setting.compiled.name)
    kept = [kind for kind in ("engine", "timing") if f"trt_{kind}_cache_path" in ours]
    return ours | {f"trt_{kind}_cache_enable": "True" for kind in kept}


# OpenVINO.

_PRECISION, _MODE = "INFERENCE_PRECISION_HINT", "EXECUTION_MODE_HINT"
_PRECISIONS = ("f32", "f16", "bf16")
_OF_WEIGHTS = {"float32": "f32", "float16": "f16"}


def _config(about: str) -> Option:
    return Option(
        about=about,
        expected='JSON such as {"CPU": {"NUM_STREAMS": "1"}}, or a file that holds it',
        read=_read_config,
    )


def _read_config(text: str) -> str:
    """Of JSON or of a file, of which ONNX Runtime takes only the first, and logs the rest away."""
    if not text.startswith("{"):
        try:
            text = expanded(text).read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(error.strerror) from None
    try:
        config = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_config(config)
    return json.dumps(config)


def _check_config(config: Any) -> None:
    """Refuse what OpenVINO's provider skips with a line in its log."""
    if not isinstance(config, dict):
        raise ValueError("it is no JSON object")
    for device, properties in config.items():
        if device not in ("CPU", "GPU", "NPU"):
            raise ValueError(f"{device} is none of CPU, GPU, NPU")
        if not isinstance(properties, dict):
            raise ValueError(f"{device} holds no JSON object")
        if odd := [key for key, value in properties.items() if not isinstance(value, (str, int, float))]:
            raise ValueError(f"{device}.{odd[0]} is no text, number or boolean")
        if properties.get(_PRECISION, "f32") not in _PRECISIONS:
            raise ValueError(f"{device}.{_PRECISION} is none of {', '.join(_PRECISIONS)}")


OPENVINO: Mapping[str, Option] = {
    "device_type": device_option("the device; the default is CPU"),
    "precision": choice_option(
        "the precision of the arithmetic; the default is f32 on a CPU, and that of the weights on a GPU",
        *_PRECISIONS,
    ),
    "cache_dir": folder_option("keeps what OpenVINO compiled here; useful on a GPU"),
    "load_config": _config("OpenVINO's own properties, by device"),
}


def openvino_options(given: Options, setting: Setting) -> dict[str, str]:
    """OpenVINO's: all of its properties in one `load_config`, as versions from 1.23 on want it.

    Raises `RequestError` for a `load_config` of a device that is not used, which would do nothing, and for a
    precision that is said twice.
    """
    device = given.get("device_type", "CPU")
    kind = device.partition(".")[0]
    config = json.loads(given.get("load_config", "{}"))
    if idle := [name for name in config if name != kind]:
        raise RequestError(f"openvino's option load_config is about {idle[0]}, and device_type is {device}")
    theirs = config.get(kind, {})
    if "precision" in given and (twice := [key for key in (_PRECISION, _MODE) if key in theirs]):
        raise RequestError(
            f"openvino's option precision is given, and {twice[0]} in load_config: expected one"
        )
    properties = _properties(kind, given, setting) | theirs
    if _MODE in theirs:
        properties.pop(_PRECISION, None)
    passed = {"device_type": device, "load_config": json.dumps({kind: properties})}
    return passed | {name: given[name] for name in ("cache_dir",) if name in given}


def _properties(kind: str, given: Options, setting: Setting) -> dict[str, Any]:
    """Of a device. By itself OpenVINO computes fp32 weights in bf16 on CPUs that can, and in f16 on GPUs."""
    usual = {"CPU": "f32", "GPU": _OF_WEIGHTS.get(setting.dtype)}.get(kind)
    precision = given.get("precision", usual)
    threads = {"INFERENCE_NUM_THREADS": str(setting.threads)} if kind == "CPU" and setting.threads else {}
    return threads | ({_PRECISION: precision} if precision else {})
