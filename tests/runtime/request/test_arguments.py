"""Arguments of the wrong kind, from Python: each is named in a typed error, and nothing is run."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import (
    OutOfMemoryError,
    ProviderError,
    Request,
    RequestError,
    SdrtError,
    StableDiffusionPipeline,
)
from sdrt.common.rng import Generator

HUGE = 10**5000
"""More digits than Python writes."""


@pytest.mark.parametrize("model", [None, 5, b"shapes", ["shapes"], pytest.param("sha\0pes", id="null")])
def test_a_model_that_is_no_name(model: Any) -> None:
    with pytest.raises(RequestError, match=r"model is .*: expected a folder"):
        StableDiffusionPipeline.from_pretrained(model, provider="cpu")


@pytest.mark.parametrize(
    "name", ["~nobody-of-that-name/model", "x" * 300, "x/" * 3000], ids=["user", "name", "path"]
)
def test_a_name_that_no_file_can_have(name: str) -> None:
    with pytest.raises(SdrtError):
        StableDiffusionPipeline.from_pretrained(name, provider="cpu")


@pytest.mark.parametrize(
    "provider", [None, 0, b"cpu", ["cpu"], pytest.param("cuda:" + "9" * 5000, id="huge")]
)
def test_a_provider_that_is_no_name(tiny_model: Path, provider: Any) -> None:
    with pytest.raises(ProviderError, match="provider"):
        StableDiffusionPipeline.from_pretrained(tiny_model, provider=provider)


@pytest.mark.parametrize("threads", ["4", 1.5, pytest.param(HUGE, id="huge"), -1, True])
def test_threads_that_are_no_count(tiny_model: Path, threads: Any) -> None:
    with pytest.raises(RequestError, match="threads is"):
        StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=threads)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": HUGE}, "seed is a very large int"),
        ({"num_inference_steps": HUGE}, "num_inference_steps is a very large int"),
        ({"height": -HUGE}, "height is a very large int"),
        ({"guidance_scale": HUGE}, "guidance_scale is a very large int"),
        ({"output_type": ["pil"]}, "output_type is"),
        ({"latents": [[1.0], [1.0, 2.0]]}, "latents has rows of unequal length"),
        ({"latents": np.full((1, 4, 8, 8), 1e300)}, "latents contains .* infinite in float32"),
    ],
)
def test_a_request_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        Request(prompt="a", **options)


def test_a_seed_that_cannot_be_written() -> None:
    with pytest.raises(RequestError, match="seed is a very large int"):
        Generator(HUGE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scheduler": 5}, "scheduler is 5: expected a name"),
        ({"scheduler": ["euler"]}, r"scheduler is \['euler'\]"),
        ({"scheduler": "a\0/b"}, "cannot be read"),
        (
            {"scheduler": Path(__file__).parent},
            "is a folder without scheduler_config.json: expected a name such as",
        ),
        ({"spacing": ["karras"]}, r"unknown spacing \['karras'\]"),
        ({"callback_on_step_end": "print"}, "callback_on_step_end is 'print': expected a function"),
        ({"callback_on_step_end_tensor_inputs": None}, "tensor_inputs is None: expected a list"),
        ({"callback_on_step_end_tensor_inputs": "latents"}, "tensor_inputs is 'latents': expected a list"),
        ({"callback_on_step_end_tensor_inputs": [["latents"]]}, "tensor_inputs has"),
    ],
)
def test_a_call_that_cannot_be(
    pipeline: StableDiffusionPipeline, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        pipeline("a", num_inference_steps=1, **options)


def test_a_stream_says_at_once_what_is_wrong(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(RequestError, match=r"request is 'a': expected an sdrt\.Request"):
        pipeline.stream("a")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="height is 12"):
        pipeline.stream(Request(prompt="a", height=12))


def test_a_request_takes_its_settings_by_name() -> None:
    with pytest.raises(TypeError):
        Request("a cat")  # type: ignore[misc]
    kinds = {one.kind for one in inspect.signature(Request).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


def test_a_step_names_its_tensors(pipeline: StableDiffusionPipeline) -> None:
    steps = pipeline.stream(Request(prompt="a", num_inference_steps=2))
    step = next(steps)
    for names, words in (
        (["foo"], "names has 'foo'"),
        ("latents", "names is 'latents'"),
        (None, "names is None"),
    ):
        with pytest.raises(RequestError, match=f"{words}: expected .*(latents|a list)"):
            step.tensors(names)  # type: ignore[union-attr,arg-type]
    with pytest.raises(RequestError, match="tensors is None: expected a dict"):
        step.update(None)  # type: ignore[union-attr,arg-type]


def test_a_scheduler_is_found_in_the_folder_of_a_model(pipeline: StableDiffusionPipeline) -> None:
    in_model = pipeline.scheduler_for(pipeline.model.path)
    assert in_model.settings == pipeline.scheduler_for(pipeline.model.path / "scheduler").settings


def test_a_step_that_is_over_takes_no_changes(pipeline: StableDiffusionPipeline) -> None:
    steps = pipeline.stream(Request(prompt="a", num_inference_steps=3, output_type="latent"))
    first, second = next(steps), next(steps)
    with pytest.raises(RequestError, match="step 0 is over"):
        first.update({"latents": first.latents * 0})  # type: ignore[union-attr]
    second.update({"latents": second.latents})  # type: ignore[union-attr]
    steps.close()  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match="step 1 is over"):
        second.update({})  # type: ignore[union-attr]


@pytest.mark.parametrize("value", [[[1.0], [1.0, 2.0]], None, "x", np.array([1j])])
def test_a_callback_that_returns_no_array(pipeline: StableDiffusionPipeline, value: Any) -> None:
    with pytest.raises(RequestError, match="the callback returned latents"):
        pipeline("a", num_inference_steps=2, callback_on_step_end=lambda *_: {"latents": value})


def test_results_can_be_compared(pipeline: StableDiffusionPipeline) -> None:
    one, two = (pipeline("a", num_inference_steps=1, seed=0, output_type="np") for _ in range(2))
    assert one == one
    assert one != two  # which image it is, its arrays tell


def test_memory_that_numpy_lacks(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One of its own: afterwards it takes less memory.
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, notify=lambda message: None)

    def full(*_: object) -> None:
        raise MemoryError("Unable to allocate 3.00 TiB")

    monkeypatch.setattr("sdrt.run.one_pass.to_pil", full)
    with pytest.raises(OutOfMemoryError, match=r"close other programs, or use a smaller model; .*3\.00 TiB"):
        pipeline("a", num_inference_steps=1)
