"""Options of execution providers: which ones a user may set, and which ones sdrt passes to ONNX Runtime."""

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
    "WEBGPU",
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
    """What decides a provider's options for a graph, besides the user's options.

    Attributes:
        threads: the number of CPU threads. None for all cores.
        dtype: the dtype of the weights, "float32" or "float16".
        compiled: this graph's folder for compiled engines. None if they cannot be kept.
        repeats: whether the graph runs many times at the same shape.
    """

    threads: int | None = None
    dtype: str = "float32"
    compiled: Path | None = None
    repeats: bool = False


def read_options(
    provider: str, known: Mapping[str, Option] | None, given: Mapping[str, Any]
) -> dict[str, str]:
    """`given` as ONNX Runtime takes it. With `known` options, any other raises `RequestError`.

    Raises:
        RequestError: an option is unknown, or has a wrong value.
    """
    if not isinstance(given, Mapping):
        raise RequestError(
            f"provider_options is {brief(given)}: expected a mapping of names to values",
            argument="provider_options",
            provider=provider,
            fits="names and values",
        )
    if known is None:
        return {str(name): _read(provider, str(name), _ANY, value) for name, value in given.items()}
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


def _given(text: str) -> str:
    if not text:
        raise ValueError
    return text


_ANY = Option(about="what the library makes of it", expected="a text or a number", read=_given)


def _read(provider: str, name: str, option: Option, value: object) -> str:
    try:
        return option.read(_text(value))
    except ValueError as error:
        reason = f" ({error})" if str(error) else ""
        raise RequestError(
            f"{provider}'s option {name} is {brief(value)}{reason}: expected {option.expected}",
            argument=name,
            provider=provider,
            fits=option.expected,
        ) from None


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        value = json.dumps(value, default=str)
    return str(value).strip() if isinstance(value, (str, int, float, Path)) else ""


# CUDA and TensorRT.

CUDA: Mapping[str, Option] = {
    "gpu_mem_limit": size_option(
        "limits the device memory in one session's arena; each component has its own session"
    ),
    "arena_extend_strategy": choice_option(
        "how much the arena grows at a time", "kSameAsRequested", "kNextPowerOfTwo"
    ),
    # DEFAULT is missing: ONNX Runtime calls it extremely slow. So is the limit of workspace, which cuDNN 9 ignores.
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
    """The user's options, and no others."""
    return dict(given)


def cuda_options(given: Options, setting: Setting) -> dict[str, str]:
    """CUDA's options. A graph that runs once is not recorded, because a recording keeps its memory."""
    return {key: value for key, value in given.items() if setting.repeats or key != "enable_cuda_graph"}


def tensorrt_options(given: Options, setting: Setting) -> dict[str, str]:
    """TensorRT's options: fp16 kernels for fp16 weights, and folders for engines and timings.

    There are no shape profiles, because a profile fits one graph's inputs and these options go to all of a model's
    graphs. TensorRT builds an engine in the first run, for its sizes, and again when another size comes.
    """
    ours = {"trt_fp16_enable": str(setting.dtype == "float16")}
    if setting.compiled is not None:
        # Timings depend on kernels, not on weights, so all models share them.
        paths = {"engine": setting.compiled, "timing": setting.compiled.parent}
        ours |= {f"trt_{kind}_cache_path": str(path) for kind, path in paths.items()}
    ours |= given
    if setting.compiled is not None and "trt_engine_cache_path" in given:
        # TensorRT finds engines by names and shapes, not by weights, so each graph needs its own folder.
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
    """JSON for ONNX Runtime, from the text itself or from the file that it names."""
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
    """Raise `ValueError` for values that OpenVINO's provider would ignore with no more than a line in its log."""
    if not isinstance(config, dict):
        raise ValueError("it is not a JSON object")
    for device, properties in config.items():
        if device not in ("CPU", "GPU", "NPU"):
            raise ValueError(f"{device} is not one of CPU, GPU, NPU")
        if not isinstance(properties, dict):
            raise ValueError(f"{device} is not a JSON object")
        if odd := [key for key, value in properties.items() if not isinstance(value, (str, int, float))]:
            raise ValueError(f"{device}.{odd[0]} is not a string, number or boolean")
        if properties.get(_PRECISION, "f32") not in _PRECISIONS:
            raise ValueError(f"{device}.{_PRECISION} is not one of {', '.join(_PRECISIONS)}")


WEBGPU: Mapping[str, Option] = {
    "preferredLayout": choice_option("the layout of images inside of the provider", "NHWC", "NCHW"),
    "powerPreference": choice_option(
        "which GPU to take, if there are several", "high-performance", "low-power"
    ),
    "validationMode": choice_option(
        "how much each command is checked, which takes time", "disabled", "wgpuOnly", "basic", "full"
    ),
}

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
    """OpenVINO's options, with all properties in one `load_config`, as ONNX Runtime 1.23 and later take them.

    Raises `RequestError` for a `load_config` about a device that is not used, and for a precision that is given twice.
    """
    device = given.get("device_type", "CPU")
    kind = device.partition(".")[0]
    config = json.loads(given.get("load_config", "{}"))
    if idle := [name for name in config if name != kind]:
        raise RequestError.expected(
            f"openvino's option load_config is about {idle[0]}, but device_type is {device}",
            "the same device",
            argument="load_config",
            provider="openvino",
        )
    theirs = config.get(kind, {})
    if "precision" in given and (twice := [key for key in (_PRECISION, _MODE) if key in theirs]):
        raise RequestError.advised(
            f"openvino's options precision and load_config ({twice[0]}) both set the precision",
            "leave one out",
            argument="precision",
            provider="openvino",
        )
    properties = _properties(kind, given, setting) | theirs
    if _MODE in theirs:
        properties.pop(_PRECISION, None)
    passed = {"device_type": device, "load_config": json.dumps({kind: properties})}
    return passed | {name: given[name] for name in ("cache_dir",) if name in given}


def _properties(kind: str, given: Options, setting: Setting) -> dict[str, Any]:
    """A device's properties. By default OpenVINO computes fp32 in bf16 on CPUs that support it, in f16 on GPUs."""
    usual = {"CPU": "f32", "GPU": _OF_WEIGHTS.get(setting.dtype)}.get(kind)
    precision = given.get("precision", usual)
    threads = {"INFERENCE_NUM_THREADS": str(setting.threads)} if kind == "CPU" and setting.threads else {}
    return threads | ({_PRECISION: precision} if precision else {})
