"""Sessions: providers, input checks, buffers, cancelling."""

from __future__ import annotations

import _thread
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sdrt import (
    ComponentError,
    OutOfMemoryError,
    ProviderError,
    RequestError,
    StableDiffusionPipeline,
)
from sdrt.common.interrupt import Worker, interruptible
from sdrt.common.notices import Notices
from sdrt.onnx import engine as onnx_runtime
from sdrt.onnx import session
from sdrt.onnx.buffers import Bound
from sdrt.onnx.engine import available_providers, default_threads, ort
from sdrt.onnx.error_messages import Subject, load_failure, run_failure
from sdrt.onnx.providers import SessionConfig, provider_names
from sdrt.onnx.session import Component


@pytest.fixture(scope="module")
def unet(tiny_model: Path) -> Component:
    config = SessionConfig(provider="cpu", threads=1)
    return Component("unet", tiny_model / "unet" / "model.onnx", config, Notices(lambda message: None))


@pytest.fixture
def shapes(unet: Component) -> dict[str, tuple[int, ...]]:
    """Input shapes at batch 2 and 8 by 8 latents; other free dimensions are 77."""
    sizes: dict[int | str, int] = {"height": 8, "width": 8}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, spec in unet.inputs.items():
        first = 2 if len(spec.shape) > 1 else 1
        rest = [size if isinstance(size, int) else sizes.get(size, 77) for size in spec.shape[1:]]
        shapes[name] = (first, *rest) if spec.shape else ()
    return shapes


def fill(run: Bound, shapes: dict[str, tuple[int, ...]], seed: int) -> None:
    random = np.random.default_rng(seed)
    for name, shape in shapes.items():
        if name != "timestep":
            run.set(name, random.standard_normal(shape, dtype=np.float32))


@pytest.mark.parametrize("provider", ["cud", "CPU", "", "cpu0"])
def test_unknown_provider_lists_the_valid_ones(tiny_model: Path, provider: str) -> None:
    with pytest.raises(ProviderError, match=f"unknown provider '{provider}'.*auto, cpu, cuda, tensorrt"):
        StableDiffusionPipeline.from_pretrained(tiny_model, provider=provider)
    assert "cpu" in provider_names()


def test_bad_device_number_and_threads() -> None:
    for provider in ("cuda:x", "cuda:", "cuda:-1"):
        with pytest.raises(ProviderError, match="expected a device number"):
            SessionConfig(provider=provider)
    for provider in ("cpu:7", "auto:3", "openvino:1", "cpu:"):
        with pytest.raises(ProviderError, match="takes no device number; only cuda, tensorrt do"):
            SessionConfig(provider=provider)
    with pytest.raises(RequestError, match="threads is 0"):
        SessionConfig(threads=0)


@pytest.mark.skipif("cuda" in available_providers(), reason="this build has CUDA")
def test_cuda_without_cuda_is_an_error_with_the_fix(tiny_model: Path) -> None:
    with pytest.raises(ProviderError, match=r"no cuda provider .*offers cpu.*pip install .*\[gpu\]'"):
        StableDiffusionPipeline.from_pretrained(tiny_model, provider="cuda")
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    with pytest.raises(ProviderError, match="no cuda provider"):
        pipeline.to("cuda")
    assert pipeline.provider == "cpu"


@pytest.mark.parametrize("works", [True, False])
def test_auto_takes_cuda_only_where_it_works(monkeypatch: pytest.MonkeyPatch, works: bool) -> None:
    messages: list[str] = []
    monkeypatch.setattr(onnx_runtime, "available_providers", lambda: ("cpu", "cuda"))
    monkeypatch.setattr(onnx_runtime, "cuda_works", lambda: works)
    found = onnx_runtime.settle(SessionConfig(), Notices(messages.append))
    assert found.provider == ("cuda" if works else "cpu")
    assert [message.startswith("running on the CPU") for message in messages] == [True] * (not works)
    # Asked for by name, it is not replaced.
    assert onnx_runtime.settle(SessionConfig(provider="cuda:1"), Notices()).provider == "cuda:1"


@pytest.mark.skipif("cuda" in available_providers(), reason="this build has CUDA")
def test_a_build_without_cuda_has_no_working_device() -> None:
    assert not onnx_runtime.cuda_works()


def test_loading_libraries_leaves_stdout_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_runtime.ort, "preload_dlls", lambda: print("not found"), raising=False)
    onnx_runtime.preload_cuda.cache_clear()
    onnx_runtime.preload_cuda()
    onnx_runtime.preload_cuda()
    onnx_runtime.preload_cuda.cache_clear()
    assert capsys.readouterr() == ("", "not found\n")


class FakeSession:
    """As much of `InferenceSession` as is asked before the first run; remembers its arguments."""

    def __init__(self, path: str, options: object, providers: list[str], *rest: Any, **more: Any) -> None:
        FakeSession.asked = providers, rest[0]
        self._providers = providers

    def get_providers(self) -> list[str]:
        return self._providers

    def get_inputs(self) -> list[Any]:
        return []

    def get_overridable_initializers(self) -> list[Any]:
        return []

    def get_modelmeta(self) -> Any:
        return SimpleNamespace(custom_metadata_map={})

    get_outputs = get_inputs


def fake(monkeypatch: pytest.MonkeyPatch, session_class: type[FakeSession]) -> None:
    monkeypatch.setattr(onnx_runtime, "available_providers", lambda: tuple(onnx_runtime.PROVIDERS))
    monkeypatch.setattr(session, "preload_cuda", lambda: None)
    monkeypatch.setattr(onnx_runtime, "has_cudnn", lambda: True)
    monkeypatch.setattr(onnx_runtime.ort, "InferenceSession", session_class)


def placed(**operators: str) -> type[FakeSession]:
    """A session that says on which provider each operator landed."""

    class Placed(FakeSession):
        def get_provider_graph_assignment_info(self) -> list[Any]:
            return [
                SimpleNamespace(ep_name=ep, get_nodes=lambda op=op: [SimpleNamespace(op_type=op)])
                for op, ep in operators.items()
            ]

    return Placed


def make(provider: str, messages: list[str], **options: Any) -> Component:
    config = SessionConfig(provider=provider, **options)
    return Component("unet", Path("model.onnx"), config, Notices(messages.append))


def test_an_onnxruntime_that_cannot_tell_the_placement_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, FakeSession)
    messages: list[str] = []
    make("cuda", messages)
    assert "does not report which operators run on cuda" in messages[0]
    make("cpu", messages)
    assert len(messages) == 1


def test_heavy_work_elsewhere_is_an_error_with_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, placed(Conv="OpenVINOExecutionProvider", MultiHeadAttention="CPUExecutionProvider"))
    with pytest.raises(ProviderError, match=r"1 MultiHeadAttention on other providers.*--target portable"):
        make("openvino", [])
    messages: list[str] = []
    make("openvino", messages, allow_fallback=True)
    assert "1 MultiHeadAttention on other providers" in messages[0]
    # What leaves nothing on the CPU must not, CUDA may compute its shapes there.
    fake(monkeypatch, placed(Conv="OpenVINOExecutionProvider", Shape="CPUExecutionProvider"))
    with pytest.raises(ProviderError, match="1 Shape on other providers"):
        make("openvino", messages)
    fake(monkeypatch, placed(Conv="CUDAExecutionProvider", Shape="CPUExecutionProvider"))
    make("cuda", messages)
    assert len(messages) == 1


class Forbidding(FakeSession):
    """A session of a version that does not tell the placement, where something lands on the CPU."""

    def __init__(self, path: str, options: Any, providers: list[str], *rest: Any, **more: Any) -> None:
        super().__init__(path, options, providers, *rest, **more)
        if options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1":
            raise RuntimeError("fallback to CPU EP has been explicitly disabled by the user")


def test_an_older_onnxruntime_is_forbidden_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, Forbidding)
    with pytest.raises(
        ProviderError, match=r"unet would run on the CPU, whole or in part; .*--target portable"
    ):
        make("openvino", [])
    # ONNX Runtime refuses to be told both to use the CPU and not to.
    assert FakeSession.asked[0] == ["OpenVINOExecutionProvider"]
    messages: list[str] = []
    monkeypatch.setattr(onnx_runtime.ort, "InferenceSession", FakeSession)
    make("openvino", messages, allow_fallback=True)
    assert FakeSession.asked[0] == ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
    assert "does not report which operators run on openvino" in messages[0]


def test_a_provider_that_refused_its_options_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(FakeSession):
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    fake(monkeypatch, Refusing)
    with pytest.raises(
        ProviderError,
        match=r"runs on CPUExecutionProvider instead of openvino.*may have refused device_type=GPU",
    ):
        make("openvino", [], provider_options={"device_type": "GPU"})


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("[libprotobuf] onnx.ModelProto exceeded maximum protobuf size of 2GB: 3442329055", r"--dtype fp16"),
        (
            "Exception from a.cpp:1: Exception from b.cpp:2: Unsupported property BOGUS",
            r"options.*: b.cpp:2: Unsup",
        ),
        ("The value for the key 'trt_fp16_enable' should be 'True' or 'False'", "refuses one of its options"),
    ],
)
def test_what_a_provider_refuses_has_its_remedy(
    monkeypatch: pytest.MonkeyPatch, reason: str, words: str
) -> None:
    class Failing(FakeSession):
        def __init__(self, *_: Any, **__: Any) -> None:
            raise RuntimeError(reason)

    fake(monkeypatch, Failing)
    with pytest.raises(ProviderError, match=words):
        make("tensorrt", [])


def test_tensorrt_leaves_what_it_refuses_to_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, placed(Conv="TensorrtExecutionProvider", MatMul="CUDAExecutionProvider"))
    make("tensorrt:1", [])
    providers, options = FakeSession.asked
    assert [name.removesuffix("ExecutionProvider") for name in providers] == ["Tensorrt", "CUDA", "CPU"]
    assert [entry.get("device_id") for entry in options] == ["1", "1", None]
    fake(monkeypatch, placed(Conv="TensorrtExecutionProvider", MatMul="CPUExecutionProvider"))
    with pytest.raises(ProviderError, match=r"1 MatMul on other providers.*--target portable"):
        make("tensorrt", [])


def test_provider_is_resolved(tiny_model: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, notify=lambda message: None)
    assert pipeline.to("cpu") is pipeline
    assert pipeline.provider == "cpu"


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        (
            "sample",
            np.zeros((2, 3, 8, 8), np.float32),
            r"unet: input 'sample' takes float32\[.*got float32\[2, 3, 8, 8\]",
        ),
        ("sample", np.zeros((8, 8), np.float32), r"got float32\[8, 8\]"),
        (
            "sample",
            np.zeros((2, 4, 8, 9), np.float32),
            r"was bound for shape \(2, 4, 8, 8\), got \(2, 4, 8, 9\)",
        ),
        ("sample", np.zeros((2, 4, 8, 8), np.complex64), "got complex64"),
        ("sample", np.zeros((2, 4, 8, 8), np.int64), "got int64"),
        ("sample", np.zeros((2, 4, 8, 8), np.bool_), "got bool"),
        ("latents", np.zeros((2, 4, 8, 8), np.float32), "no input 'latents': it takes sample, timestep"),
    ],
)
def test_wrong_inputs_are_named(
    unet: Component, shapes: dict[str, tuple[int, ...]], name: str, array: np.ndarray, words: str
) -> None:
    with unet.bound(shapes, ("out_sample",)) as run, pytest.raises(ComponentError, match=words):
        run.set(name, array)


def test_text_ids_are_no_floats(tiny_model: Path) -> None:
    config = SessionConfig(provider="cpu", threads=1)
    encoder = Component("text_encoder", tiny_model / "text_encoder/model.onnx", config, Notices())
    with (
        encoder.bound({"input_ids": (1, 77)}, ("last_hidden_state",)) as run,
        pytest.raises(ComponentError, match=r"takes int\d\d\[.*got float32"),
    ):
        run.set("input_ids", np.zeros((1, 77), np.float32))


def test_another_component_s_graph_is_refused(tiny_model: Path) -> None:
    config = SessionConfig(provider="cpu", threads=1)
    wrong = Component("unet", tiny_model / "vae_decoder/model.onnx", config, Notices())
    with pytest.raises(ComponentError, match="takes latent_sample, expected sample, timestep"):
        wrong.require(("sample", "timestep", "encoder_hidden_states"), ("out_sample",))


def test_results_land_in_the_same_buffer_every_time(
    unet: Component, shapes: dict[str, tuple[int, ...]]
) -> None:
    addresses, results = set(), []
    for seed in (0, 1, 0):
        with unet.bound(shapes, ("out_sample",)) as run:
            fill(run, shapes, seed)
            for _ in range(2):
                output = run()["out_sample"]
                addresses.add(output.ctypes.data)
            results.append(output.copy())
    assert len(addresses) == 1
    np.testing.assert_array_equal(results[0], results[2])
    assert np.abs(results[0] - results[1]).max() > 0.01


def test_widths_of_one_kind_are_converted(unet: Component, shapes: dict[str, tuple[int, ...]]) -> None:
    results = []
    for dtype in (np.float16, np.float64):
        with unet.bound(shapes, ("out_sample",)) as run:
            run.set("sample", np.full(shapes["sample"], 0.5, dtype))
            results.append(run()["out_sample"].copy())
    np.testing.assert_array_equal(*results)


class CopyingBinding:
    """A binding as a provider with memory of its own has it: it copies an input when that is bound."""

    def __init__(self, binding: Any) -> None:
        self._binding, self._copies = binding, dict[str, np.ndarray]()
        self._iobinding = binding._iobinding

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        self._copies[name] = array.copy()
        self._binding.bind_cpu_input(name, self._copies[name])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._binding, name)


@pytest.mark.parametrize("memory", ["copied when bound", "the provider's own"])
def test_every_value_that_is_set_arrives(
    tiny_model: Path, shapes: dict[str, tuple[int, ...]], monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    config = SessionConfig(provider="cpu", threads=1)
    unet, plain = (Component("unet", tiny_model / "unet/model.onnx", config, Notices()) for _ in range(2))
    if memory == "the provider's own":
        # An OrtValue on the CPU stands in for one on a GPU.
        unet._row = replace(unet._row, device="cpu")
    else:
        monkeypatch.setattr(unet, "new_binding", lambda: CopyingBinding(unet._session.io_binding()))
    results = []
    for component in (unet, plain):
        with component.bound(shapes, ("out_sample",)) as run:
            assert bool(run._device) == (component is unet and memory == "the provider's own")
            fill(run, shapes, 0)
            run()
            fill(run, shapes, 1)
            run.set("timestep", np.full(run.shape("timestep"), 500, unet.inputs["timestep"].dtype))
            results.append(run()["out_sample"].copy())
    np.testing.assert_array_equal(*results)


def test_two_at_once_do_not_share_buffers(unet: Component, shapes: dict[str, tuple[int, ...]]) -> None:
    with unet.bound(shapes, ("out_sample",)) as one, unet.bound(shapes, ("out_sample",)) as two:
        fill(one, shapes, 1)
        fill(two, shapes, 2)
        first = one()["out_sample"].copy()
        two()
        np.testing.assert_array_equal(one()["out_sample"], first)


@pytest.fixture
def used(tiny_model: Path, shapes: dict[str, tuple[int, ...]]) -> Callable[[int], weakref.ref[Bound]]:
    """Takes buffers of a component for latents of this height, gives them back, and tells which they were."""
    config = SessionConfig(provider="cpu", threads=1)
    component = Component("unet", tiny_model / "unet" / "model.onnx", config, Notices())

    def use(height: int) -> weakref.ref[Bound]:
        with component.bound(shapes | {"sample": (2, 4, height, 8)}, ("out_sample",)) as run:
            return weakref.ref(run)

    return use


def test_buffers_that_nobody_uses_are_let_go_of(used: Callable[[int], weakref.ref[Bound]]) -> None:
    """All but four: each size that was ever asked for would stay in memory."""
    made = [used(height) for height in range(8, 18)]
    gc.collect()
    assert sum(reference() is not None for reference in made) == 4


def test_those_that_were_used_last_are_kept(used: Callable[[int], weakref.ref[Bound]]) -> None:
    made = {height: used(height) for height in range(8, 14)}
    # Not by when they were made: the oldest that is there is used again, so the next goes.
    assert used(10) == made[10]
    made[14] = used(14)
    gc.collect()
    assert [height for height, reference in made.items() if reference() is not None] == [10, 12, 13, 14]


def test_ctrl_c_cancels_waits_and_raises() -> None:
    started, cancelled = threading.Event(), threading.Event()
    finished: list[bool] = []

    def work() -> None:
        started.set()
        finished.append(cancelled.wait(30))

    def press() -> None:
        started.wait(30)
        _thread.interrupt_main()

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        interruptible(work, cancelled.set)
    presser.join()
    assert finished == [True]


def test_ctrl_c_pressed_again_still_waits_for_the_work() -> None:
    started, pressed = threading.Event(), threading.Event()
    finished: list[bool] = []

    def work() -> None:
        started.set()
        finished.append(pressed.wait(30))

    def press() -> None:
        started.wait(30)
        for _ in range(2):
            _thread.interrupt_main()
            # It is noticed when the main thread wakes, five times a second.
            time.sleep(0.4)
        pressed.set()

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        interruptible(work, lambda: None)
    assert finished == [True]
    presser.join()


def test_a_signal_while_work_is_handed_over_waits_for_it() -> None:
    """Between handing it over and waiting: the work may have begun, and still uses its caller's buffers."""
    told: list[str] = []
    worker = Worker("test")
    plain = worker.submit

    def submit(work: Callable[[], None]) -> None:
        plain(work)
        begun.wait(10)
        raise KeyboardInterrupt

    def work() -> None:
        told.append("began")
        begun.set()
        stopped.wait(10)
        told.append("ended")

    begun, stopped = threading.Event(), threading.Event()
    worker.submit = submit  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        interruptible(work, stopped.set, worker)
    assert told == ["began", "ended"]


def test_work_that_has_not_begun_is_not_waited_for() -> None:
    """The worker is at another caller's."""
    worker, busy = Worker("test"), threading.Event()
    worker.submit(lambda: busy.wait(10) and None)
    done: list[str] = []
    threading.Timer(0.2, _thread.interrupt_main).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interruptible(lambda: done.append("done"), lambda: None, worker)
    assert time.monotonic() - began < 5
    busy.set()
    interruptible(lambda: None, lambda: None, worker)
    assert done == []


def test_a_worker_s_thread_ends_with_it() -> None:
    worker = Worker("test-that-ends")
    thread = next(one for one in threading.enumerate() if one.name == "test-that-ends")
    del worker
    thread.join(10)
    assert not thread.is_alive()


def test_a_thread_of_the_user_s_goes_on_when_the_main_one_has_ended(tiny_model: Path) -> None:
    """On a device each component has a thread of its own, which must take work for as long as anybody has some."""
    code = """
import sys, threading
from dataclasses import replace
from sdrt import StableDiffusionPipeline
from sdrt.onnx.providers import PROVIDERS

PROVIDERS["cpu"] = replace(PROVIDERS["cpu"], device="cpu")
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1], provider="cpu", verify=False).load()
ended = threading.Event()

def generate():
    ended.wait()
    for _ in range(3):
        pipeline("a", num_inference_steps=2, width=64, height=64)
    print("made", flush=True)

threading.Thread(target=generate).start()
threading.Thread(target=lambda: (threading.main_thread().join(), ended.set())).start()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_model)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("made\n", 0), done.stderr


@pytest.mark.parametrize("there", [True, False])
def test_cuda_by_name_without_cudnn_is_refused(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(onnx_runtime, "has_cudnn", lambda: there)
    if there:
        onnx_runtime.require_cudnn()
        return
    with pytest.raises(ProviderError, match=r"libcudnn\.so\.9.*LD_LIBRARY_PATH"):
        onnx_runtime.require_cudnn()


def test_a_failure_in_the_worker_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0, lambda: None)


@pytest.mark.parametrize(
    "said",
    [
        "Failed to allocate memory for requested buffer of size 1048576",
        # An arena with a limit, such as gpu_mem_limit, says it so.
        "Available memory of 1048576 is smaller than requested bytes of 4194304",
        "pthread_create failed, error code: 12 error msg: Cannot allocate memory",
        "can't start new thread",
    ],
)
def test_out_of_memory_is_told_as_such(said: str) -> None:
    subject = Subject(name="unet", path=Path("model.onnx"), provider="cuda", version="1")
    error = run_failure(subject, RuntimeError(said))
    assert isinstance(error, OutOfMemoryError)
    assert "low_vram" in str(error)


@pytest.mark.parametrize("make", [run_failure, load_failure])
def test_a_missing_cudnn_is_named(make: Callable[..., Exception]) -> None:
    """Since 1.28 ONNX Runtime misses it no sooner than in the first convolution."""
    subject = Subject(name="unet", path=Path("model.onnx"), provider="cuda", version="1.31.1")
    error = make(subject, RuntimeError("NhwcConv node: cuDNN is unavailable or disabled"))
    assert isinstance(error, ProviderError)
    assert "needs cuDNN 9" in str(error)
    assert "[gpu]" in str(error)


@pytest.mark.parametrize("there", [True, False])
def test_a_device_without_cudnn_does_not_work(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(onnx_runtime, "has_cudnn", lambda: there)
    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_shape_and_type", lambda *_: None)
    assert onnx_runtime.cuda_works.__wrapped__() is there


@pytest.mark.parametrize("method", ["device_value", "new_recording"])
def test_the_device_s_own_failures_are_ours(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Buffers are made and fetched apart from runs; what fails there is told as what fails in a run."""

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA failure 2: out of memory")

    monkeypatch.setattr(Component, method, fail)
    made = StableDiffusionPipeline.from_pretrained(tiny_model, low_vram=False)
    with pytest.raises(OutOfMemoryError, match=r"ran out of memory on cpu.*CUDA failure 2"):
        made("a", num_inference_steps=1, width=64, height=64)


@pytest.mark.parametrize(
    ("usable", "asked", "made"), [(2, 64, 2), (2, 1024, 2), (2, 2, 2), (2, 1, 1), (None, 64, 64)]
)
def test_no_more_threads_than_cpus(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, usable: int | None, asked: int, made: int
) -> None:
    monkeypatch.setattr(onnx_runtime, "usable_cpus", lambda: usable)
    said: list[str] = []
    pipeline = StableDiffusionPipeline.from_pretrained(
        tiny_model, provider="cpu", threads=asked, verify=False, notify=said.append
    )
    assert pipeline.threads == made
    expected = f"threads is {asked}, but this process may use 2 CPUs, so sdrt uses 2 threads"
    assert said == ([expected] if made < asked else [])
    if made <= 2:
        pipeline("a", num_inference_steps=1, width=64, height=64)
        assert len(said) <= 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux")
def test_the_share_of_a_container_decides_how_many_threads_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    for usable, threads in ((3, 3), (64, 0), (None, 0)):
        monkeypatch.setattr(onnx_runtime, "usable_cpus", lambda usable=usable: usable)
        assert default_threads() == threads
