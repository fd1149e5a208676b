"""What people write who come from diffusers: it works, or an error says what to write instead."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sdrt
from sdrt import Request, RequestError, SdrtError, StableDiffusionPipeline
from sdrt.errors import ProviderError, UnknownArgumentError, UnknownAttributeError, UnknownNameError
from sdrt.foreign.arguments import CALLING, LOADING, PIPELINE_ARGUMENTS
from sdrt.foreign.imports import IMPORTS
from sdrt.foreign.pipeline import PIPELINE, RESULT, SCHEDULER
from sdrt.foreign.word import Word

FAST: dict[str, Any] = {"num_inference_steps": 2, "output_type": "np"}


def refused(words: tuple[Word, ...]) -> list[Word]:
    """The rows that sdrt has not, without patterns."""
    return [word for word in words if not word.works and "*" not in word.name]


@pytest.mark.parametrize("word", refused(IMPORTS), ids=lambda word: word.name)
def test_an_import_says_what_to_import(word: Word) -> None:
    with pytest.raises(UnknownNameError) as caught:
        exec(f"from sdrt import {word.name}")
    assert isinstance(caught.value, (SdrtError, ImportError))
    assert str(caught.value) == f"sdrt has no {word.name} ({word.what}): {word.ours}"
    assert (caught.value.argument, caught.value.fits) == (word.name, word.ours)
    assert not hasattr(sdrt, word.name)
    with pytest.raises(UnknownAttributeError):
        getattr(sdrt, word.name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("FluxPipeline", "keep diffusers"),
        ("StableDiffusion3Img2ImgPipeline", "sdrt runs Stable Diffusion 1, 2 and XL"),
        ("StableDiffusionControlNetPipeline", "pass controlnet= and control_image="),
        ("UNet2DConditionModel", "loads the whole model folder"),
        ("KarrasVeScheduler", r"`sdrt schedulers` lists them"),
        ("PixArtAlphaPipeline", "import StableDiffusionPipeline"),
        ("Requst", r"did you mean Request\?"),
        ("Colour", "it has .*StableDiffusionPipeline"),
    ],
)
def test_names_by_their_kind(name: str, words: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"^sdrt has no {name}.*: .*{words}"):
        exec(f"from sdrt import {name}")


def test_modules_can_still_be_imported() -> None:
    for name in ("errors", "pipeline", "schedulers", "cli"):
        found: dict[str, Any] = {}
        exec(f"from sdrt import {name}", found)
        assert found[name] is importlib.import_module(f"sdrt.{name}")
    assert getattr(sdrt, "nothing", 3) == 3
    assert "EulerDiscreteScheduler" not in dir(sdrt)


@pytest.mark.parametrize("word", refused(PIPELINE), ids=lambda word: word.name)
def test_an_attribute_of_a_pipeline_says_what_to_write(pipeline: StableDiffusionPipeline, word: Word) -> None:
    expected = f"StableDiffusionPipeline has no {word.name} ({word.what}): {word.ours}"
    for read in (
        lambda: getattr(pipeline, word.name),
        lambda: setattr(pipeline, word.name, None),
        lambda: getattr(StableDiffusionPipeline, word.name),
    ):
        with pytest.raises(UnknownAttributeError) as caught:
            read()
        assert str(caught.value) == expected
        assert caught.value.argument == word.name
    assert not hasattr(pipeline, word.name)
    assert getattr(pipeline, word.name, 3) == 3


def test_a_mistyped_attribute(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(UnknownAttributeError, match=r"has no schedulr: did you mean scheduler\?"):
        pipeline.schedulr = "euler"  # type: ignore[attr-defined]
    with pytest.raises(UnknownAttributeError, match=r"has no lod: did you mean load\?"):
        pipeline.lod()  # type: ignore[attr-defined]
    with pytest.raises(UnknownAttributeError, match=r"has no colour: it has .*scheduler, .*stream"):
        pipeline.colour  # type: ignore[attr-defined]  # noqa: B018
    for name in ("to", "provider", "stream"):
        with pytest.raises(UnknownAttributeError, match=f"{name} cannot be assigned"):
            setattr(pipeline, name, None)


def test_an_error_of_a_property_is_not_hidden(pipeline: StableDiffusionPipeline) -> None:
    class Broken(StableDiffusionPipeline):
        __slots__ = ()

        @property
        def broken(self) -> None:
            raise AttributeError("the reason")

    with pytest.raises(AttributeError, match=r"^the reason$"):
        Broken(pipeline.model, pipeline._cache.config).broken  # noqa: B018


def test_a_subclass_may_have_attributes(pipeline: StableDiffusionPipeline) -> None:
    class Own(StableDiffusionPipeline):
        pass

    own = Own(pipeline.model, pipeline._cache.config)
    own.note = 3  # type: ignore[attr-defined]
    assert own.note == 3  # type: ignore[attr-defined]


def test_a_model_without_a_safety_checker_has_none_to_turn_on(pipeline: StableDiffusionPipeline) -> None:
    pipeline.safety_checker = None
    assert pipeline.safety_checker is None
    pipeline.safety_checker = True
    assert pipeline.safety_checker is None
    with pytest.raises(
        RequestError, match=r"safety_checker is .*: expected None to turn the model's own off"
    ):
        pipeline.safety_checker = lambda images, **_: (images, False)  # type: ignore[assignment]


def test_there_is_no_progress_bar(pipeline: StableDiffusionPipeline) -> None:
    pipeline.set_progress_bar_config(disable=True)
    with pytest.raises(RequestError, match=r"pipeline\.stream yields the steps"):
        pipeline.set_progress_bar_config(disable=False)
    with pytest.raises(
        UnknownArgumentError, match=r"set_progress_bar_config has no argument leave .*remove it"
    ):
        pipeline.set_progress_bar_config(leave=False)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("method", "word"),
    [
        (method, word)
        for method, words in PIPELINE_ARGUMENTS.items()
        if method != "__init__"
        for word in refused(tuple(words))
    ],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
def test_an_argument_says_what_to_write(pipeline: StableDiffusionPipeline, method: str, word: Word) -> None:
    with pytest.raises(UnknownArgumentError) as caught:
        getattr(pipeline, method)("a", **{word.name: object()})
    assert isinstance(caught.value, TypeError)
    assert str(caught.value).startswith(f"StableDiffusionPipeline.{method} has no argument {word.name} (")
    assert str(caught.value).endswith(f": {word.ours}")
    assert (caught.value.argument, caught.value.fits) == (word.name, word.ours)


def test_arguments_that_ask_for_nothing_are_taken(tiny_model: Path) -> None:
    loading = {word.name: value for word in LOADING for value in word.harmless}
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=1, **loading)
    calling = {word.name: value for word in CALLING for value in word.harmless}
    assert pipeline("a", seed=5, **FAST, **calling).seeds == [5]
    # Other values of the same arguments do change something.
    for name, value in (
        ("requires_safety_checker", True),
        ("local_files_only", True),
        ("use_safetensors", False),
    ):
        with pytest.raises(UnknownArgumentError, match=name):
            StableDiffusionPipeline.from_pretrained(tiny_model, **{name: value})
    for name, value in (
        ("callback_steps", 5),
        ("return_dict", 0),
        ("cross_attention_kwargs", {"scale": 0.5}),
    ):
        with pytest.raises(UnknownArgumentError, match=name):
            pipeline("a", **FAST, **{name: value})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda pipe: pipe("a", guidence_scale=3),
            r"__call__ has no argument guidence_scale: did you mean guidance_scale\?",
        ),
        (
            lambda pipe: pipe("a", 64, 64, 2, None, 7.5),
            r"takes only prompt, height, width, num_inference_steps by position, got 6",
        ),
        (lambda pipe: pipe("a", prompt="b"), "multiple values for argument 'prompt'"),
        (lambda pipe: pipe.from_pretrained(), "missing a required argument: 'model'; give it"),
        (lambda pipe: pipe.from_pretrained("shapes", "cpu"), "takes only model by position, got 2"),
        (lambda pipe: pipe.from_pretrained("shapes", provder="cpu"), r"did you mean provider\?"),
        (lambda pipe: pipe.warm_up(widht=64), r"warm_up has no argument widht: did you mean width\?"),
        (lambda pipe: pipe.warm_up(colour=3), "warm_up has no argument colour: its arguments are in help"),
        (lambda pipe: pipe.plan(prompt="a"), r"no argument prompt .*: make a Request\(…\) with it"),
        (lambda pipe: pipe.stream(Request(prompt="a"), schedler=3), r"did you mean scheduler\?"),
        (lambda pipe: pipe.to("cpu", dtype="float16"), "sdrt export --dtype fp16"),
        (
            lambda pipe: StableDiffusionPipeline(vae=1, unet=2),
            "make pipelines with StableDiffusionPipeline.from_pretrained",
        ),
        (lambda pipe: Request(promt="a"), r"Request has no argument promt: did you mean prompt\?"),
        (lambda pipe: Request("a"), "Request takes no arguments by position"),
        (lambda pipe: Request(prompt="a", generator=1), "give seed="),
        (lambda pipe: Request(prompt="a", scheduler="euler"), "pipeline.plan or pipeline.stream"),
    ],
)
def test_a_wrong_call(
    pipeline: StableDiffusionPipeline, call: Callable[[StableDiffusionPipeline], object], message: str
) -> None:
    with pytest.raises(UnknownArgumentError, match=message) as caught:
        call(pipeline)
    assert "\n" not in str(caught.value)
    assert caught.value.fits


def test_signatures_stay_as_they_were() -> None:
    parameters = inspect.signature(StableDiffusionPipeline.__call__).parameters
    assert list(parameters)[:5] == ["self", "prompt", "height", "width", "num_inference_steps"]
    assert "provider" in inspect.signature(StableDiffusionPipeline.from_pretrained).parameters
    assert inspect.signature(StableDiffusionPipeline.to).parameters["provider"].annotation == "str"
    assert "seed" in inspect.signature(Request).parameters


def test_a_result_is_read_as_that_of_diffusers(pipeline: StableDiffusionPipeline) -> None:
    output = pipeline("a", seed=5, **FAST)
    assert output[0] is output["images"] is output.images
    assert output.nsfw_content_detected is output[1] is None
    images, nsfw = pipeline("a", seed=5, return_dict=False, **FAST)
    np.testing.assert_array_equal(images, output.images)
    assert nsfw is None
    with pytest.raises(IndexError):
        output[2]
    for word in refused(RESULT):
        with pytest.raises(UnknownAttributeError, match="StableDiffusionPipelineOutput has no"):
            getattr(output, word.name)
    with pytest.raises(UnknownAttributeError, match=r"has no imges: did you mean images\?"):
        output["imges"]
    with pytest.raises(UnknownArgumentError, match=r"save has no argument pth: did you mean path\?"):
        output.save(pth="a.png")  # type: ignore[call-arg]


def test_copies_and_pickles_are_not_disturbed(pipeline: StableDiffusionPipeline) -> None:
    assert copy.copy(pipeline).model is pipeline.model
    output = pipeline("a", seed=5, **FAST)
    for again in (copy.copy(output), copy.deepcopy(output), pickle.loads(pickle.dumps(output))):
        np.testing.assert_array_equal(again.images, output.images)
    assert copy.deepcopy(pipeline.scheduler).settings == pipeline.scheduler.settings
    assert "StableDiffusionPipeline object" in repr(pipeline)
    assert {"to", "scheduler", "model"} <= set(dir(pipeline))
    assert "unet" not in dir(pipeline)


@pytest.mark.parametrize("word", refused(SCHEDULER), ids=lambda word: word.name)
def test_an_attribute_of_a_scheduler_says_what_to_write(
    pipeline: StableDiffusionPipeline, word: Word
) -> None:
    with pytest.raises(UnknownAttributeError) as caught:
        getattr(pipeline.scheduler, word.name)
    assert str(caught.value) == f"Scheduler has no {word.name} ({word.what}): {word.ours}"


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        ("mps", r"unknown provider 'mps' \(Apple's GPU\): write coreml"),
        ("gpu", "write cuda"),
        ("DmlExecutionProvider", "give its library as well"),
    ],
)
def test_devices_of_other_programs(tiny_model: Path, provider: str, words: str) -> None:
    with pytest.raises(ProviderError, match=words):
        StableDiffusionPipeline.from_pretrained(tiny_model, provider=provider)


def test_names_of_providers_in_onnx_runtime(tiny_model: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, provider="CPUExecutionProvider")
    assert pipeline.provider == "cpu"
    assert pipeline.to("CPUExecutionProvider").provider == "cpu"
