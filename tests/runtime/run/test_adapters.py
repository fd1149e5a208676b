"""LoRAs of a pipeline: diffusers' names and meanings, the base bit for bit without them, shared sessions."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import Request, StableDiffusionPipeline
from sdrt.errors import ModelNotFoundError, ProviderError, RequestError, UnsupportedModelError
from sdrt.model_folder.manifest import FileRecord, Manifest
from sdrt.onnx.providers import SessionConfig
from sdrt.run.memory import ComponentCache
from tests.adapters import write_lora

CALL: dict[str, Any] = {"num_inference_steps": 2, "seed": 0, "output_type": "np", "width": 64, "height": 64}


@pytest.fixture
def pipe(tiny_model: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=1, notify=print)


@pytest.fixture
def lora(tiny_model: Path, tmp_path: Path) -> Callable[[int], Path]:
    """A LoRA's file, by its seed."""
    shapes = parameters(StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu"))
    return lambda seed: write_lora(tmp_path / f"lora-{seed}.safetensors", shapes, seed=seed)


def parameters(pipe: StableDiffusionPipeline) -> dict[str, Any]:
    return {name: pipe.model.parameters(name) for name in ("unet", "text_encoder")}


def image(pipe: StableDiffusionPipeline, prompt: str = "a cat", **options: Any) -> np.ndarray:
    return np.asarray(pipe(prompt, **CALL | options).images)


def test_without_weight_and_after_unloading_the_model_is_its_own(
    pipe: StableDiffusionPipeline, lora: Callable[[int], Path]
) -> None:
    base = image(pipe)
    pipe.load_lora_weights(lora(1), adapter_name="a")
    changed = image(pipe)
    assert np.abs(changed - base).max() > 0.05
    pipe.set_adapters("a", 0)
    np.testing.assert_array_equal(image(pipe), base)
    pipe.set_adapters("a")
    np.testing.assert_array_equal(image(pipe), changed)
    pipe.disable_lora()
    np.testing.assert_array_equal(image(pipe), base)
    pipe.enable_lora()
    np.testing.assert_array_equal(image(pipe), changed)
    np.testing.assert_array_equal(image(pipe, lora_scale=0), base)
    pipe.unload_lora_weights()
    np.testing.assert_array_equal(image(pipe), base)


def test_names_mean_what_they_mean_in_diffusers(
    pipe: StableDiffusionPipeline, lora: Callable[[int], Path]
) -> None:
    """diffusers 0.39.0 with peft 0.21.2: loading makes the new adapter the only active one."""
    assert (pipe.get_active_adapters(), pipe.get_list_adapters()) == ([], {})
    pipe.load_lora_weights(lora(1))
    assert pipe.get_active_adapters() == ["default_0"]
    pipe.load_lora_weights(str(lora(2)), adapter_name="b")
    assert pipe.get_active_adapters() == ["b"]
    assert pipe.get_list_adapters() == {"unet": ["default_0", "b"], "text_encoder": ["default_0", "b"]}
    pipe.set_adapters(["default_0", "b"], [0.5, 2.0])
    assert pipe.get_active_adapters() == ["default_0", "b"]
    pipe.set_adapters("b")
    pipe.disable_lora()
    assert pipe.get_active_adapters() == ["b"]
    pipe.delete_adapters("b")
    assert pipe.get_active_adapters() == ["default_0"]
    pipe.unload_lora_weights()
    assert (pipe.get_active_adapters(), pipe.get_list_adapters()) == ([], {})


def test_two_at_once_and_a_weight_for_each_component(
    pipe: StableDiffusionPipeline, lora: Callable[[int], Path]
) -> None:
    one, two = lora(1), lora(2)
    pipe.load_lora_weights(one, "a")
    pipe.load_lora_weights(two, "b")
    pipe.set_adapters(["a", "b"], [{"unet": 0.5, "text_encoder": 0}, -0.25])
    both = image(pipe)
    pipe.unload_lora_weights()
    np.testing.assert_array_equal(image(pipe, lora=[f"{one}:0:0.5", f"{two}:-0.25"]), both)
    named = f"a cat<lora:{one.stem}:0:0.5><lora:{two.stem}:-0.25>"
    np.testing.assert_array_equal(image(pipe, named, lora_dir=one.parent), both)
    np.testing.assert_array_equal(image(pipe, lora=[f"{one}:0:1", f"{two}:-.5"], lora_scale=0.5), both)
    pipe.load_lora_weights(two, "b")
    pipe.set_adapters("b", -0.25)
    np.testing.assert_array_equal(image(pipe, lora=f"{one}:0:0.5"), image(pipe, lora=f"{one}:0:0.5"))
    assert np.abs(image(pipe, lora=f"{one}:0:0.5") - both).max() < 1e-3  # added in another order


def test_only_what_changes_is_loaded_anew(pipe: StableDiffusionPipeline, lora: Callable[[int], Path]) -> None:
    pipe.load()
    before = {graph.name: graph for graph in pipe.graphs}
    pipe.load_lora_weights(lora(1), "a")
    pipe.set_adapters("a", {"unet": 1, "text_encoder": 0})
    assert {graph.name: graph for graph in pipe.graphs} == before
    pipe.load()
    after = {graph.name: graph for graph in pipe.graphs}
    assert {name for name in before if before[name] is not after[name]} == {"unet"}
    pipe.set_adapters("a", {"unet": 1, "text_encoder": 1})
    pipe.load()
    last = {graph.name: graph for graph in pipe.graphs}
    assert {name for name in after if after[name] is not last[name]} == {"text_encoder"}


def test_threads_with_other_adapters_do_not_disturb_each_other(
    pipe: StableDiffusionPipeline, lora: Callable[[int], Path]
) -> None:
    files = [lora(1), lora(2), None]
    calls: list[dict[str, Any]] = [{} if file is None else {"lora": str(file)} for file in files]
    expected = [image(pipe, **call) for call in calls]
    made: dict[tuple[int, int], np.ndarray] = {}

    def work(number: int) -> None:
        for turn in range(2):
            made[number, turn] = image(pipe, **calls[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    for (number, _), one in made.items():
        np.testing.assert_array_equal(one, expected[number])


def test_a_run_keeps_the_adapters_that_it_was_planned_with(
    pipe: StableDiffusionPipeline, lora: Callable[[int], Path]
) -> None:
    pipe.load_lora_weights(lora(1), "a")
    expected = image(pipe)
    steps = pipe.stream(Request(prompt="a cat", **CALL))
    pipe.unload_lora_weights()
    *_, result = steps
    np.testing.assert_array_equal(result.images, expected)


def test_with_low_vram_too(tiny_model: Path, lora: Callable[[int], Path]) -> None:
    thrifty = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=1, low_vram=True)
    base = image(thrifty)
    changed = image(thrifty, lora=lora(1))
    assert np.abs(changed - base).max() > 0.05
    np.testing.assert_array_equal(image(thrifty), base)


def test_errors_leave_everything_as_it_was(
    pipe: StableDiffusionPipeline, lora: Callable[[int], Path], tmp_path: Path
) -> None:
    pipe.load_lora_weights(lora(1), "a")
    expected = image(pipe)
    (tmp_path / "no.safetensors").write_bytes(b"x" * 20)
    wrong: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (ModelNotFoundError, "there is no LoRA file", lambda: pipe.load_lora_weights(tmp_path / "none")),
        (
            UnsupportedModelError,
            "no.safetensors",
            lambda: pipe.load_lora_weights(tmp_path / "no.safetensors"),
        ),
        (RequestError, "'a', which is loaded already", lambda: pipe.load_lora_weights(lora(2), "a")),
        (RequestError, "'b', which is not loaded: expected 'a'", lambda: pipe.set_adapters(["a", "b"])),
        (RequestError, "has 1 weights: expected 2", lambda: pipe.set_adapters(["a", "a"], [1])),
        (RequestError, "adapter_weights is 'x'", lambda: pipe.set_adapters("a", "x")),  # type: ignore[arg-type]
        (RequestError, "expected the components unet", lambda: pipe.set_adapters("a", {"vae": 1})),
        (RequestError, "adapter_names is 3", lambda: pipe.set_adapters(3)),  # type: ignore[arg-type]
        (RequestError, "'b', which is not loaded", lambda: pipe.delete_adapters("b")),
        (ModelNotFoundError, "there is no LoRA file", lambda: image(pipe, lora="none")),
        (ModelNotFoundError, "is no folder", lambda: image(pipe, "<lora:x>", lora_dir="none")),
    ]
    for kind, message, call in wrong:
        with pytest.raises(kind, match=message):
            call()
    assert pipe.get_active_adapters() == ["a"]
    np.testing.assert_array_equal(image(pipe), expected)


def test_a_weight_that_overflows_is_an_error_that_names_the_adapter(
    pipe: StableDiffusionPipeline, tmp_path: Path
) -> None:
    base = image(pipe)
    file = write_lora(tmp_path / "huge.safetensors", parameters(pipe), scale=3e25)
    with pytest.raises(UnsupportedModelError, match=r"adapter 'huge' makes .* infinite or not a number"):
        image(pipe, lora=file)
    np.testing.assert_array_equal(image(pipe), base)


def test_providers_that_compile_weights_are_refused(
    tiny_model: Path, pipe: StableDiffusionPipeline, lora: Callable[[int], Path]
) -> None:
    planned = pipe.plan(Request(prompt="x", lora=lora(1), **CALL))
    cache = ComponentCache(pipe.model, SessionConfig(provider="openvino"), pipe._notices)
    with pytest.raises(
        ProviderError, match=r"openvino compiles a model with its weights.*use provider cpu, cuda"
    ):
        cache.for_request(planned.request)


def test_weights_in_the_graph_s_own_file_change_as_those_beside_it(
    tiny_model: Path, tmp_path: Path, lora: Callable[[int], Path]
) -> None:
    onnx = pytest.importorskip("onnx")
    inline = tmp_path / "inline"
    shutil.copytree(tiny_model, inline)
    files = dict(Manifest.read(inline / "sdrt.json").files)
    for component in ("unet", "text_encoder"):
        graph = inline / component / "model.onnx"
        onnx.save(onnx.load(graph), graph)
        (inline / component / "model.onnx_data").unlink()
        files[f"{component}/model.onnx"] = FileRecord.of(graph)
        del files[f"{component}/model.onnx_data"]
    replace(Manifest.read(inline / "sdrt.json"), files=files).write(inline / "sdrt.json")
    images = []
    for folder in (tiny_model, inline):
        pipe = StableDiffusionPipeline.from_pretrained(folder, provider="cpu", threads=1, notify=print)
        base = image(pipe)
        pipe.load_lora_weights(lora(1), adapter_name="a")
        changed = image(pipe)
        assert np.abs(changed - base).max() > 0.05
        np.testing.assert_array_equal(image(pipe, lora_scale=0), base)
        images.append(changed)
    np.testing.assert_array_equal(*images)
