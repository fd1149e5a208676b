"""Which provider a session gets: what is missing, refused, or left to the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdrt import ProviderError, RequestError, StableDiffusionPipeline
from sdrt.common.notices import Notices
from sdrt.onnx import engine as onnx_runtime
from sdrt.onnx import session
from sdrt.onnx.engine import available_providers, default_threads, ort
from sdrt.onnx.error_messages import Subject, load_failure, run_failure
from sdrt.onnx.providers import SessionConfig, provider_names
from sdrt.onnx.session import Component


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
        with pytest.raises(ProviderError, match="takes no device number; only cuda, tensorrt, webgpu do"):
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


@pytest.mark.parametrize("there", [True, False])
def test_cuda_by_name_without_cudnn_is_refused(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(onnx_runtime, "has_cudnn", lambda: there)
    if there:
        onnx_runtime.require_cudnn()
        return
    with pytest.raises(ProviderError, match=r"libcudnn\.so\.9.*LD_LIBRARY_PATH"):
        onnx_runtime.require_cudnn()


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
