"""Creates sessions of ONNX Runtime: the provider's options, the session's own, and errors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from math import isfinite, isinf
from pathlib import Path
from typing import Any
from weakref import WeakSet

from sdrt.common.allocator import reusing_freed_memory
from sdrt.common.cancelling import held
from sdrt.common.interrupt import Worker, interruptible
from sdrt.common.notices import Notices
from sdrt.errors import IntegrityError, ProviderError, SdrtError, UnsupportedModelError
from sdrt.onnx.composed import ATTENTION, PRODUCT, composed
from sdrt.onnx.cpu_layout import keep_arranged
from sdrt.onnx.engine import FAILURES, can_pass_weights, default_threads, ort, tells_placement
from sdrt.onnx.engine_cache import Weights, compiled_folder
from sdrt.onnx.error_messages import Subject, load_failure
from sdrt.onnx.graph_file import read_graph
from sdrt.onnx.linked_weights import LinkedWeights, is_refusal_of_links
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt.onnx.placement import is_refusal_to_fall_back, refusal, shortfall, unfit
from sdrt.onnx.plugins import Device, chosen
from sdrt.onnx.probe import attention_error, product_error
from sdrt.onnx.provider_options import Setting
from sdrt.onnx.providers import PROVIDERS, SessionConfig
from sdrt.onnx.tensorrt import load_tensorrt

__all__ = ["UNTUNED", "Place", "create_session", "session_setting"]

# ONNX Runtime's option for graphs that are not in a file.
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_told: WeakSet[Notices] = WeakSet()
_PROBES = {ATTENTION: attention_error, PRODUCT: product_error}
# In attention, float16 gives 0.004.
_LARGEST_ERROR = 0.05
_OUTSIDE_THE_ARENA = "session.use_device_allocator_for_initializers"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Whether a session is of a tuned graph.

    Attributes:
        tuned: the tuned graph that is loaded in place of the graph itself.
        changed: the tuned graph with other values for some weights.
        written: the file to which the tuned graph is written.
        weights: the name of the file of its weights, beside `written`.
        is_trial: whether the session only shows that the tuned graph is right. Such a session is not profiled.
    """

    tuned: Path | None = None
    changed: MemoryGraph | None = None
    written: Path | None = None
    weights: str = "weights"
    is_trial: bool = False


UNTUNED = Place()
"""A session of the graph itself."""


def session_setting(
    subject: Subject, config: SessionConfig, weights: Weights, notices: Notices, *, repeats: bool
) -> Setting:
    """The setting that decides a provider's options for one graph, with the folder for compiled engines.

    `repeats` says that the graph runs many times at the same shape.

    Raises `ProviderError` if a folder that the user named cannot be made.
    """
    setting = Setting(threads=config.threads, dtype=weights.dtype, repeats=repeats)
    if not PROVIDERS[subject.provider].keeps_compiled or (version := load_tensorrt()) is None:
        return setting
    versions = f"{subject.provider}-{version}-onnxruntime-{ort.__version__}"
    options = config.passed(subject.provider, setting)
    setting = replace(setting, compiled=compiled_folder(subject.path, weights, versions, options, notices))
    if (folder := config.passed(subject.provider, setting).get("trt_engine_cache_path")) is not None:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProviderError(
                f"trt_engine_cache_path: cannot make {folder} ({error.strerror or error}): choose another folder",
                **subject.facts,
                argument="trt_engine_cache_path",
                fits="another folder",
            ) from error
    return setting


def create_session(
    subject: Subject,
    config: SessionConfig,
    setting: Setting,
    *,
    lock: threading.RLock | None,
    thread: Worker | None,
    notices: Notices,
    memory: MemoryGraph | None = None,
    place: Place = UNTUNED,
) -> Any:
    """Create ONNX Runtime's session of a graph, in `thread` and under the device's `lock`. Ctrl-C ends it early.

    `memory` is the graph if it is not in the subject's file. Its `uncopied` values must exist as long as the session.
    `place` says whether the graph is loaded as it was tuned before, or is written now.

    Raises `ProviderError` if there is no such device.
    """
    row = PROVIDERS[subject.provider]
    strict = row.whole and not config.allow_fallback and not tells_placement()
    # If fallback to the CPU is disabled, ONNX Runtime refuses a list of providers that names the CPU.
    names = list(dict.fromkeys([subject.provider, *row.helpers, *([] if strict else ["cpu"])]))
    providers = {PROVIDERS[name].ort: config.passed(name, setting) for name in names}
    device = chosen(config)
    memory = place.changed if place.tuned else memory
    path = place.tuned or subject.path
    if device is not None and row.probed:
        try:
            memory = _fit(subject, device, memory, notices, lock)
        except FAILURES as error:
            raise _failure(subject, config, error) from error

    def create(linked: LinkedWeights | None) -> Any:
        options = _session_options(subject.name, config, strict)
        options.enable_profiling &= not (place.is_trial or place.written)
        if place.tuned is not None:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            # ONNX Runtime packs matrices again to compare them with the file, which is most of the time of this load.
            # All threads do that here. For an untuned graph it would take more memory.
            options.add_session_config_entry("session.prepack.enable_parallel", "1")
        if place.written is not None:
            keep_arranged(options, place.written, place.weights)
        # A graph is written with weights that are copied into it.
        in_place = subject.provider == "cpu" and place.written is None
        given = [] if memory is None else _give_weights(memory, options, subject.provider, in_place=in_place)
        if device is not None:
            options.add_provider_for_devices([device.handle], config.passed(subject.provider, setting))
        cancel = getattr(options, "set_load_cancellation_flag", lambda flag: None)

        def work() -> Any:
            maps = None if linked is None else linked.give_to(options)
            session = ort.InferenceSession(
                str(path) if memory is None else memory.content,
                options,
                None if device else list(providers),
                None if device else list(providers.values()),
                enable_fallback=0,
            )
            del maps
            given.clear()
            return session

        with held(lock) if lock else nullcontext():
            return interruptible(work, lambda: cancel(True), thread)

    try:
        # ONNX Runtime frees the weights that it has converted, reordered or packed.
        with reusing_freed_memory():
            return _following_links(path, create)
    except FAILURES as error:
        raise _failure(subject, config, error) from error


def _fit(
    subject: Subject,
    device: Device,
    memory: MemoryGraph | None,
    notices: Notices,
    lock: threading.RLock | None,
) -> MemoryGraph | None:
    """The graph without operators that the device lacks or computes wrongly. None if it is that of the subject's file.

    Raises:
        UnsupportedModelError: nothing can take the place of an operator that the device computes wrongly.
    """
    content = subject.path.read_bytes() if memory is None else memory.content
    with held(lock) if lock else nullcontext():
        errors = {
            operator: error
            for operator, probe in _PROBES.items()
            if operator.encode() in content and not (error := probe(device)) <= _LARGEST_ERROR
        }
    if not errors:
        return memory
    try:
        fit = composed(content, subject.path, errors)
    except UnsupportedModelError:
        # What the device only lacks may run elsewhere, if the user allows it.
        if all(isinf(error) for error in errors.values()):
            return memory
        raise
    if ATTENTION in errors and notices not in _told:
        _told.add(notices)
        error = errors[ATTENTION]
        problem = (
            f"computes ONNX Runtime's {ATTENTION} wrongly (largest error {error:.2g})"
            if isfinite(error)
            else f"does not run ONNX Runtime's {ATTENTION}"
        )
        notices.inform(
            f"{subject.provider} on {device} {problem}, so attention runs as matrix products and a softmax"
        )
    if memory is None:
        return MemoryGraph(content=fit, folder=subject.path.parent)
    return replace(memory, content=fit)


def _give_weights(memory: MemoryGraph, options: Any, provider: str, *, in_place: bool) -> list[Any]:
    """Set in `options` where a graph's weights are. The result and `memory` must exist until the session is created.

    With `in_place`, ONNX Runtime uses the `uncopied` values where they are, as long as the session exists.
    """
    options.add_session_config_entry(_WEIGHTS_FOLDER, str(memory.folder))
    uncopied = memory.uncopied if in_place else frozenset()
    values = {name: _value(memory, name) for name in memory.values}
    for name in uncopied:
        options.add_initializer(name, values[name])
    copied = {name: value for name, value in values.items() if name not in uncopied}
    if copied:
        options.add_external_initializers(list(copied), list(copied.values()))
        if provider == "cpu":
            # ONNX Runtime copies these weights before it packs them. The arena would keep the memory of each copy.
            options.add_session_config_entry(_OUTSIDE_THE_ARENA, "1")
    return list(values.values())


def _value(memory: MemoryGraph, name: str) -> Any:
    array = memory.values[name]
    if name in memory.types:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, memory.types[name])
    return ort.OrtValue.ortvalue_from_numpy(array)


def _following_links(graph: Path, create: Callable[[LinkedWeights | None], Any]) -> Any:
    """Call `create`, and once more with the weights if ONNX Runtime refuses them because of a link."""
    try:
        return create(None)
    except FAILURES as error:
        if not (is_refusal_of_links(error) and can_pass_weights()):
            raise
        linked = LinkedWeights(graph)
        if not linked:
            raise
    # This is outside `except`, because the error's traceback would keep the memory of the first attempt.
    return create(linked)


def _failure(subject: Subject, config: SessionConfig, error: BaseException) -> SdrtError:
    if is_refusal_to_fall_back(error):
        return shortfall(
            subject,
            f"{subject.name} would run on the CPU, whole or in part; onnxruntime {ort.__version__} does not report "
            "which operators, but 1.24 and later do",
            unfit(config),
            refusal(config),
        )
    if (lost := _lost_weights(subject.path)) is not None:
        return IntegrityError.advised(
            f"{subject.name}: {lost} is missing, which holds weights of {subject.path.name}",
            "copy the whole model folder, or export it again",
            **subject.facts,
        )
    return load_failure(subject, error)


def _lost_weights(path: Path) -> Path | None:
    """The first file of weights that a graph names and that does not exist. None if the graph cannot be read."""
    with suppress(IntegrityError, OSError, ValueError):
        for name in sorted(read_graph(path).external):
            if not (path.parent / name).exists():
                return path.parent / name
    return None


def _session_options(name: str, config: SessionConfig, strict: bool) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = config.threads or default_threads()
    options.log_severity_level = 4
    # A memory pattern adds a block of memory for each shape to the arena that the first run has filled. That is half a
    # step's activations, and runs are no faster.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # After a run, a session's threads wait for the next run in a loop. The U-Net's soon get one. Those of other
    # components would take the cores from the U-Net: an image of one small step then takes 1.6 times as long.
    if not name.startswith("unet"):
        options.add_session_config_entry("session.force_spinning_stop", "1")
    # CPUs without VNNI sum products of bytes in 16 bits, which overflow. This setting makes the sums exact.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if config.profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(config.profile, name))
    if strict:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options
