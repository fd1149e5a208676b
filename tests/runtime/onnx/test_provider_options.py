"""Options of execution providers: what may be set, how it is read, and what ONNX Runtime is passed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdrt import ProviderError, RequestError, StableDiffusionPipeline
from sdrt.common.notices import Notices
from sdrt.model_folder.embedded import embedded_path
from sdrt.model_folder.folder import ModelFolder
from sdrt.onnx import create_session, session
from sdrt.onnx import engine as onnx_runtime
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.provider_options import Setting
from sdrt.onnx.providers import PROVIDERS, SessionConfig, known_options
from sdrt.onnx.session import Component


def passed(provider: str, setting: Setting = Setting(), **options: Any) -> dict[str, Any]:  # noqa: B008 - frozen
    """What the provider is passed; OpenVINO's JSON as an object."""
    config = SessionConfig(provider=provider, provider_options=options)
    found: dict[str, Any] = config.passed(config.name, setting)
    return found | {"load_config": json.loads(found["load_config"])} if "load_config" in found else found


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "openvino"])
def test_an_unknown_option_lists_the_known_ones(provider: str) -> None:
    first = next(iter(PROVIDERS[provider].takes))
    with pytest.raises(RequestError, match=f"{provider} has no option 'gpu_limit': it takes .*{first}"):
        SessionConfig(provider=provider, provider_options={"gpu_limit": 1})


@pytest.mark.parametrize("provider", ["cpu", "coreml"])
def test_a_provider_without_options_says_so(provider: str) -> None:
    with pytest.raises(RequestError, match="it takes none"):
        SessionConfig(provider=provider, provider_options={"threads": 1})


@pytest.mark.parametrize(
    ("size", "bytes_"),
    [("6GB", 6 << 30), ("1.5 gb", 3 << 29), ("512MiB", 512 << 20), (6442450944, 6 << 30), ("7B", 7)],
)
def test_sizes_are_read_as_people_write_them(size: Any, bytes_: int) -> None:
    assert passed("cuda", gpu_mem_limit=size)["gpu_mem_limit"] == str(bytes_)


@pytest.mark.parametrize(
    ("provider", "name", "value", "expected"),
    [
        ("cuda", "gpu_mem_limit", "much", "a size above zero, such as 6GB"),
        ("cuda", "gpu_mem_limit", "0", "a size"),
        ("cuda", "gpu_mem_limit", -1, "a size"),
        ("cuda", "gpu_mem_limit", "9" * 30 + "GB", "a size"),
        ("cuda", "gpu_mem_limit", None, "a size"),
        ("cuda", "cudnn_conv_algo_search", "FAST", "EXHAUSTIVE, HEURISTIC"),
        ("cuda", "use_tf32", "perhaps", "true or false"),
        ("tensorrt", "trt_builder_optimization_level", 6, "a whole number from 0 to 5"),
        ("tensorrt", "trt_builder_optimization_level", "two", "a whole number"),
        ("tensorrt", "trt_engine_cache_path", "", "a folder"),
        ("openvino", "precision", "f17", "f32, f16, bf16"),
        ("openvino", "device_type", "TPU", "CPU, GPU"),
        ("openvino", "load_config", "/nowhere/config.json", "No such file"),
        ("openvino", "load_config", "{", "expected JSON"),
        ("openvino", "load_config", '{"CPU":' * 100_000, "expected JSON"),
        ("openvino", "load_config", "~nobody-of-that-name/config.json", "home"),
        ("openvino", "cache_dir", "~nobody-of-that-name/blobs", "home"),
        ("openvino", "load_config", '{"TPU": {}}', "TPU is not one of CPU, GPU, NPU"),
        ("openvino", "load_config", '{"CPU": 1}', "CPU is not a JSON object"),
        ("openvino", "load_config", '{"CPU": {"NUM_STREAMS": null}}', "CPU.NUM_STREAMS is not a string"),
        ("openvino", "load_config", '{"CPU": {"INFERENCE_PRECISION_HINT": "f17"}}', "is not one of f32"),
        ("openvino", "load_config", '{"GPU": {}}', "about GPU, but device_type is CPU"),
    ],
)
def test_a_wrong_value_says_what_is_expected(provider: str, name: str, value: Any, expected: str) -> None:
    with pytest.raises(RequestError, match=f"{provider}'s option {name} .*{expected}"):
        SessionConfig(provider=provider, provider_options={name: value})


@pytest.mark.parametrize("options", [["gpu_mem_limit"], "gpu_mem_limit=1", 3])
def test_options_that_are_no_mapping(tiny_model: Path, options: Any) -> None:
    with pytest.raises(RequestError, match="provider_options is"):
        StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", provider_options=options)


def test_options_are_those_of_what_auto_is_decided_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "available_providers", lambda: ("cpu", "cuda"))
    monkeypatch.setattr(onnx_runtime, "cuda_works", lambda: True)
    asked = SessionConfig(provider_options={"gpu_mem_limit": "6GB"})
    assert onnx_runtime.settle(asked, Notices()).passed("cuda", Setting())["gpu_mem_limit"] == str(6 << 30)
    monkeypatch.setattr(onnx_runtime, "available_providers", lambda: ("cpu",))
    with pytest.raises(RequestError, match="cpu has no option 'gpu_mem_limit'"):
        onnx_runtime.settle(asked, Notices())


def test_every_default_is_an_option_that_its_row_takes() -> None:
    for name, row in PROVIDERS.items():
        assert row.defaults.keys() <= row.takes.keys()
        for option, value in row.defaults.items():
            assert row.takes[option].read(value) == value
        assert row.helpers or known_options(name) == row.takes


def test_cuda_s_options_go_over_its_defaults() -> None:
    assert passed("cuda:1") == {"arena_extend_strategy": "kSameAsRequested", "device_id": "1"}
    chosen = passed("cuda", arena_extend_strategy="knextpoweroftwo", use_tf32=False)
    assert chosen == {"arena_extend_strategy": "kNextPowerOfTwo", "use_tf32": "False", "device_id": "0"}


# TensorRT.


def test_tensorrt_computes_in_the_precision_of_the_weights() -> None:
    assert passed("tensorrt") == {"trt_fp16_enable": "False", "device_id": "0"}
    assert passed("tensorrt", Setting(dtype="float16"))["trt_fp16_enable"] == "True"
    assert passed("tensorrt", Setting(dtype="float16"), trt_fp16_enable=0)["trt_fp16_enable"] == "False"


def test_tensorrt_keeps_engines_and_timings(tmp_path: Path) -> None:
    folder = tmp_path / "version" / "unet"
    assert passed("tensorrt", Setting(compiled=folder), trt_max_workspace_size="2GB") == {
        "trt_fp16_enable": "False",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder.parent),
        "trt_max_workspace_size": str(2 << 30),
        "device_id": "0",
    }
    chosen = passed("tensorrt", trt_engine_cache_path=tmp_path)
    assert (chosen["trt_engine_cache_path"], chosen["trt_engine_cache_enable"]) == (str(tmp_path), "True")
    # In a user's folder too, those of other weights have others.
    chosen = passed("tensorrt", Setting(compiled=folder), trt_engine_cache_path=tmp_path / "mine")
    assert chosen["trt_engine_cache_path"] == str(tmp_path / "mine" / "unet")


def test_what_cuda_records_is_no_option_of_tensorrt() -> None:
    with pytest.raises(RequestError, match="tensorrt has no option 'enable_cuda_graph'"):
        SessionConfig(provider="tensorrt", provider_options={"enable_cuda_graph": True})


class Recorder:
    """As much of `InferenceSession` as is asked before the first run; the arguments of each are in `made`."""

    made: list[dict[str, dict[str, str]]]

    def __init__(
        self, path: str, options: Any, names: list[str], arguments: list[dict[str, str]], **_: Any
    ) -> None:
        self._names = names
        Recorder.made.append(dict(zip(names, arguments, strict=True)))

    def get_providers(self) -> list[str]:
        return self._names

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return []

    def get_inputs(self) -> list[Any]:
        return []

    get_outputs = get_overridable_initializers = get_inputs

    def get_modelmeta(self) -> Any:
        return type("Meta", (), {"custom_metadata_map": {}})


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, dict[str, str]]]:
    Recorder.made = []
    monkeypatch.setattr(onnx_runtime, "available_providers", lambda: tuple(PROVIDERS))
    monkeypatch.setattr(session, "preload_cuda", lambda: None)
    monkeypatch.setattr(create_session, "load_tensorrt", lambda: "10.13.3")
    monkeypatch.setattr(onnx_runtime.ort, "InferenceSession", Recorder)
    return Recorder.made


def load(model: Path, provider: str, **options: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        model, provider=provider, provider_options=options, notify=lambda message: None
    )


def engine_folder(model: Path, recorded: list[Any], **options: Any) -> Path:
    """Where TensorRT is told to keep the engine of the model's U-Net."""
    name = "unet"
    config = SessionConfig(provider="tensorrt", provider_options=options)
    folder = ModelFolder.open(model)
    Component(name, folder.component(name), config, Notices(pytest.fail), folder.weights(name))
    return Path(recorded[-1]["TensorrtExecutionProvider"]["trt_engine_cache_path"])


def test_engines_lie_in_the_user_s_cache(
    recorded: list[Any], tiny_model: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = engine_folder(tiny_model, recorded)
    assert own_cache / "compiled" in folder.parents
    assert folder.is_dir()
    assert engine_folder(tiny_model, recorded) == folder
    # Other options, another version of either library.
    others = {engine_folder(tiny_model, recorded, trt_builder_optimization_level=1)}
    monkeypatch.setattr(create_session, "load_tensorrt", lambda: "10.14.0")
    others.add(engine_folder(tiny_model, recorded))
    monkeypatch.setattr(onnx_runtime.ort, "__version__", "1.99.0")
    others.add(engine_folder(tiny_model, recorded))
    assert len(others | {folder}) == 4


@pytest.mark.parametrize("manifest", [True, False])
def test_other_weights_never_find_an_engine(
    recorded: list[Any], model_copy: Path, tiny_model: Path, manifest: bool
) -> None:
    if manifest:
        (model_copy / "sdrt.json").write_bytes((tiny_model / "sdrt.json").read_bytes())
        ModelFolder.open(model_copy).verify(lambda message: None)
    before = engine_folder(model_copy, recorded)
    assert engine_folder(model_copy, recorded) == before
    graph = model_copy / "unet" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    assert engine_folder(model_copy, recorded) != before


def test_the_same_weights_elsewhere_find_their_engine(
    recorded: list[Any], model_copy: Path, tiny_model: Path
) -> None:
    (model_copy / "sdrt.json").write_bytes((tiny_model / "sdrt.json").read_bytes())
    for model in (model_copy, tiny_model):
        ModelFolder.open(model).verify(lambda message: None)
    assert engine_folder(model_copy, recorded) == engine_folder(tiny_model, recorded)


def test_a_cache_that_cannot_be_written_is_a_warning(
    recorded: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SDRT_CACHE", str(tmp_path / "file"))
    messages: list[str] = []
    config = SessionConfig(provider="tensorrt")
    Component("unet", Path("unet/model.onnx"), config, Notices(messages.append), Weights(digest="0"))
    assert "unet is compiled at every start" in messages[0]
    assert "trt_engine_cache_enable" not in recorded[-1]["TensorrtExecutionProvider"]


def test_every_component_gets_the_options(recorded: list[Any], tiny_model: Path) -> None:
    pipeline = load(tiny_model, "tensorrt:1", gpu_mem_limit="6GB", trt_max_workspace_size="1GB")
    config = pipeline._cache.config
    for name in ("unet", "vae_decoder"):
        Component(name, pipeline.model.component(name), config, Notices(), pipeline.model.weights(name))
        ours, helper, cpu = recorded[-1].values()
        assert (ours["trt_max_workspace_size"], ours["device_id"]) == (str(1 << 30), "1")
        assert "gpu_mem_limit" not in ours
        assert (helper["gpu_mem_limit"], helper["device_id"]) == (str(6 << 30), "1")
        assert cpu == {}


def test_precision_follows_what_the_model_s_manifest_says(recorded: list[Any], tiny_model: Path) -> None:
    # The embedded model's weights are in half the bytes.
    for model, enabled in ((embedded_path("shapes"), "True"), (tiny_model, "False")):
        assert model is not None
        engine_folder(model, recorded)
        assert recorded[-1]["TensorrtExecutionProvider"]["trt_fp16_enable"] == enabled


def test_options_go_with_the_provider(recorded: list[Any], tiny_model: Path) -> None:
    pipeline = load(tiny_model, "cuda", gpu_mem_limit="6GB")
    assert pipeline.to("cpu").provider == "cpu"
    assert pipeline.to("cuda:1", {"gpu_mem_limit": "2GB"})._cache.config.passed("cuda", Setting()) == {
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": str(2 << 30),
        "device_id": "1",
    }
    with pytest.raises(RequestError, match="openvino has no option 'gpu_mem_limit'"):
        pipeline.to("openvino", {"gpu_mem_limit": "2GB"})
    assert pipeline.provider == "cuda"


# OpenVINO.


@pytest.mark.parametrize(
    ("device", "dtype", "precision"),
    [
        ("CPU", "float32", "f32"),
        ("CPU", "float16", "f32"),
        ("GPU.1", "float32", "f32"),
        ("GPU", "float16", "f16"),
    ],
)
def test_openvino_s_precision(device: str, dtype: str, precision: str) -> None:
    found = passed("openvino", Setting(dtype=dtype), device_type=device)
    expected = {device.partition(".")[0]: {"INFERENCE_PRECISION_HINT": precision}}
    assert (found["device_type"], found["load_config"]) == (device, expected)
    chosen = passed("openvino", Setting(dtype=dtype), device_type=device, precision="bf16")
    assert [*chosen["load_config"].values()] == [{"INFERENCE_PRECISION_HINT": "bf16"}]


def test_openvino_is_told_the_threads_and_left_the_npu_s_precision() -> None:
    found = passed("openvino", Setting(threads=3))["load_config"]
    assert found == {"CPU": {"INFERENCE_NUM_THREADS": "3", "INFERENCE_PRECISION_HINT": "f32"}}
    assert passed("openvino", Setting(threads=3), device_type="NPU")["load_config"] == {"NPU": {}}


@pytest.mark.parametrize("kind", ["object", "text", "file"])
def test_openvino_s_own_properties(tmp_path: Path, kind: str) -> None:
    config = {"CPU": {"NUM_STREAMS": "2", "INFERENCE_PRECISION_HINT": "bf16"}}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    given = {"object": config, "text": json.dumps(config), "file": str(file)}[kind]
    assert passed("openvino", load_config=given)["load_config"] == config


def test_openvino_is_not_told_a_precision_twice() -> None:
    mode = {"CPU": {"EXECUTION_MODE_HINT": "PERFORMANCE"}}
    assert passed("openvino", load_config=mode)["load_config"] == mode
    with pytest.raises(
        RequestError, match=r"precision and load_config \(EXECUTION_MODE_HINT\) both set the precision"
    ):
        SessionConfig(provider="openvino", provider_options={"precision": "f32", "load_config": mode})


@pytest.mark.parametrize("options", [{"load_config": '{"CPU": {}}'}, {"precision": "bf16"}])
def test_a_version_that_ignores_what_it_does_not_know_is_told_nothing(
    recorded: list[Any], tiny_model: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    monkeypatch.delattr(Recorder, "get_provider_graph_assignment_info")
    with pytest.raises(ProviderError, match=r"needs onnxruntime-openvino 1\.24"):
        load(tiny_model, "openvino", **options)
