"""Errors carry their facts beside their message."""

from __future__ import annotations

import ast
import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sdrt
from sdrt import StableDiffusionPipeline, errors
from sdrt.benchmark.runner import _heard
from sdrt.cli.generate.variations import parse_axis, read_prompts_file
from sdrt.common.notices import Notices
from sdrt.errors import (
    ComponentError,
    ModelNotFoundError,
    OutOfMemoryError,
    ProviderError,
    RequestError,
    SdrtError,
    UnsupportedModelError,
)
from sdrt.images.metadata import read_metadata
from sdrt.model_folder.folder import ModelFolder
from sdrt.onnx.error_messages import Subject, images_failure, load_failure, out_of_memory, run_failure
from sdrt.onnx.placement import check_target, shortfall
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component
from sdrt.request import checks

SUBJECT = Subject(name="unet", path=Path("unet/model.onnx"), provider="cuda", version="1.31")


FACTS = {
    "component": "unet",
    "path": Path("unet/model.onnx"),
    "argument": "width",
    "provider": "cpu",
    "fits": "another",
}


# The facts of these are in their messages alone, because they come from another process.
WITHOUT_FACTS = {
    "the measuring process ended with code",
    "sdrt generate failed while measuring a first image",
}


TYPES = [getattr(errors, name) for name in errors.__all__]


def facts(error: SdrtError) -> dict[str, Any]:
    return {name: getattr(error, name) for name in FACTS}


@pytest.mark.parametrize("kind", TYPES)
def test_the_message_stays_and_facts_are_optional(kind: type[SdrtError]) -> None:
    plain, full = kind("unet: is damaged"), kind("unet: is damaged", **FACTS)  # type: ignore[arg-type]
    assert str(plain) == str(full) == "unet: is damaged"
    assert facts(plain) == dict.fromkeys(FACTS)
    assert facts(full) == FACTS


@pytest.mark.parametrize("kind", TYPES)
def test_expectations_and_remedies_end_the_message(kind: type[SdrtError]) -> None:
    error: SdrtError = kind.expected("width is 3", "8", argument="width")
    assert (str(error), error.fits, error.argument) == ("width is 3: expected 8", "8", "width")
    error = kind.advised("unet is gone", "copy it", component="unet")
    assert (str(error), error.fits, error.component) == ("unet is gone: copy it", "copy it", "unet")
    assert str(kind.advised("no: it is", "copy it", joint="; ")) == "no: it is; copy it"


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_copies_are_whole(kind: type[SdrtError], again: Any) -> None:
    found = again(kind("unet: is damaged", **FACTS))  # type: ignore[arg-type]
    assert type(found) is kind
    assert str(found) == "unet: is damaged"
    assert facts(found) == FACTS


@pytest.mark.parametrize(
    "said",
    ["out of memory", "cuDNN is unavailable", "not_implemented", "unknown provider option", "file size", "?"],
)
@pytest.mark.parametrize("make", [run_failure, load_failure])
def test_failures_of_a_session_name_their_component(make: Any, said: str) -> None:
    error = make(SUBJECT, RuntimeError(said))
    assert (error.component, error.path, error.provider) == ("unet", SUBJECT.path, "cuda")


def test_what_ran_out_of_memory_is_told_from_the_facts() -> None:
    error = run_failure(SUBJECT, MemoryError())
    assert isinstance(error, OutOfMemoryError)
    assert out_of_memory(error.component, error.provider) == "unet ran out of memory on cuda"
    assert str(error).startswith("unet ran out of memory on cuda: make fewer images")
    assert error.fits is not None
    assert error.fits.startswith("make fewer images")
    error = images_failure(MemoryError())
    assert error.component is None
    assert str(error).startswith(f"{out_of_memory(error.component, error.provider)}: make fewer images")


def test_placement_says_what_would_fit() -> None:
    error: SdrtError = shortfall(SUBJECT, "unet runs on cuda only in part", "upgrade onnxruntime")
    assert (error.component, error.provider) == ("unet", "cuda")
    assert str(error) == f"unet runs on cuda only in part: {error.fits}"
    with pytest.raises(UnsupportedModelError) as caught:
        check_target("cuda", Path("model"), SessionConfig(provider="cpu"))
    assert (caught.value.path, caught.value.provider) == (Path("model"), "cpu")
    assert str(caught.value.fits).startswith("provider cuda, ")


def test_a_component_names_the_input(tiny_model: Path) -> None:
    path = tiny_model / "vae_decoder" / "model.onnx"
    component = Component("vae_decoder", path, SessionConfig(provider="cpu"), Notices())
    with pytest.raises(ComponentError) as caught:
        component.check_input("sample", np.dtype(np.float32), (1, 4, 8, 8))
    assert (caught.value.component, caught.value.path) == ("vae_decoder", path)
    assert (caught.value.argument, caught.value.fits) == ("sample", "latent_sample")
    with pytest.raises(ComponentError) as caught:
        component.check_input("latent_sample", np.dtype(np.float32), (1, 4, 8))
    assert caught.value.fits == component.inputs["latent_sample"].describe()


@pytest.mark.parametrize(
    "check",
    [
        lambda: checks.check_text("x", 1),
        lambda: checks.check_text("x", "a" * 30_000),
        lambda: checks.check_text("x", "\ud800"),
        lambda: checks.integer("x", 1.5, 0, 9),
        lambda: checks.real("x", "a", 0, 9),
        lambda: checks.numbers("x", [], 3, checks.integer, 0, 9),
        lambda: checks.tensor("x", [[1.0], [1.0, 2.0]], rank=2),
        lambda: checks.tensor("x", [1], rank=2),
        lambda: checks.tensor("x", [np.nan], rank=1),
        lambda: checks.check_shape("x", np.zeros((1, 2), np.float32), (1, 3)),
        lambda: SessionConfig(provider="cuda", provider_options={"x": 1}),
    ],
)
def test_a_refused_argument_is_named(check: Any) -> None:
    with pytest.raises(RequestError) as caught:
        check()
    assert caught.value.argument == "x"
    assert caught.value.fits
    assert str(caught.value).endswith(caught.value.fits)


@pytest.mark.parametrize(
    ("given", "argument", "fits"),
    [
        ({"width": 100}, "width", "a multiple of 8, such as 96 or 104"),
        ({"height": 4096}, "height", "at most 2048"),
        ({"hires_scale": 16, "width": 256}, "hires_scale", "at most 2048"),
        ({"scheduler": "nope"}, "scheduler", "euler"),
        ({"scheduler": "missing.json"}, "scheduler", "a scheduler_config.json"),
        ({"scheduler": 3}, "scheduler", "a name"),
        ({"spacing": "even"}, "spacing", "leading"),
        ({"scheduler": "euler", "sigmas": [1.0, 2.0]}, "sigmas", "numbers in falling order"),
        ({"scheduler": "euler", "timesteps": [5000, 1]}, "timesteps", "numbers from 0 to 999"),
        ({"timesteps": [9, 1], "sigmas": [1.0, 0.0]}, "sigmas", "at most one of timesteps and sigmas"),
        ({"num_inference_steps": 0}, "num_inference_steps", "a whole number from 1 to 1000"),
        ({"guidance_scale": "high"}, "guidance_scale", "a number from"),
        ({"seed": 2**64}, "seed", "a whole number from -2**63"),
        ({"output_type": "jpeg"}, "output_type", "one of pil"),
        ({"clip_skip": 11}, "clip_skip", "0 to"),
        ({"strength": 0.5}, "strength", "give image"),
        ({"prompt": None}, "prompt", "either prompt or prompt_embeds"),
        (
            {"prompt": ["a", "b"], "negative_prompt": ["c", "d", "e"]},
            "negative_prompt",
            "give one for each prompt",
        ),
        ({"prompt": "(a:999999)"}, "prompt", "use smaller weights"),
        ({"prompt": '("a", "b").blend(1, -1)', "prompt_syntax": "compel"}, "prompt", "choose others"),
        ({"prompt_embeds": np.zeros((1, 77, 3), np.float32), "prompt": None}, "prompt_embeds", "(any, any,"),
        ({"image": np.zeros((64, 64, 4), np.uint8)}, "image", "(height, width, 3)"),
        ({"image": np.zeros((64, 64, 3)), "mask_image": np.ones((32, 64))}, "mask_image", "the same size"),
        ({"image": np.zeros((64, 64, 3)), "mask_image": np.zeros((64, 64))}, "mask_image", "white where"),
        ({"image": np.zeros((64, 64, 3)), "strength": 0.01}, "strength", "at least"),
        ({"image": np.zeros((64, 64, 3)), "hires_scale": 2}, "hires_scale", "to enlarge the image"),
        ({"image": np.zeros((64, 64, 3)), "outpaint": "64x64@middle"}, "outpaint", "one of"),
        ({"image": np.zeros((64, 64, 3)), "outpaint": "up=3"}, "outpaint", "pixels for sides"),
        ({"callback_on_step_end": 3}, "callback_on_step_end", "a function"),
        (
            {"callback_on_step_end_tensor_inputs": ["x"]},
            "callback_on_step_end_tensor_inputs",
            "any of latents",
        ),
    ],
)
def test_a_wrong_argument(
    pipeline: StableDiffusionPipeline, given: dict[str, Any], argument: str, fits: str
) -> None:
    with pytest.raises(RequestError) as caught:
        pipeline(**{"prompt": "a red circle", "num_inference_steps": 2} | given)
    assert caught.value.argument == argument
    assert fits in str(caught.value.fits)
    assert str(caught.value.fits) in str(caught.value)


@pytest.mark.parametrize(
    ("mistake", "kind", "expected"),
    [
        (lambda at: _opened(at / "none"), ModelNotFoundError, {"argument": "model"}),
        (lambda at: _opened("owner/a model"), ModelNotFoundError, {"argument": "model"}),
        (lambda at: _opened(3), RequestError, {"argument": "model"}),
        (lambda at: _opened("shapes", revision="main"), RequestError, {"argument": "revision"}),
        (lambda at: ModelFolder.open(at / "none"), ModelNotFoundError, {"path": "none"}),
        (lambda at: ModelFolder.open(at), ModelNotFoundError, {"path": "."}),
        (
            lambda at: SessionConfig(provider="gpu"),
            ProviderError,
            {"argument": "provider", "provider": "gpu"},
        ),
        (lambda at: SessionConfig(provider="cpu:1"), ProviderError, {"provider": "cpu:1"}),
        (lambda at: SessionConfig(provider="cuda:x"), ProviderError, {"provider": "cuda:x"}),
        (lambda at: SessionConfig(threads=0), RequestError, {"argument": "threads"}),
        (lambda at: SessionConfig(low_vram=1), RequestError, {"argument": "low_vram"}),  # type: ignore[arg-type]
        (lambda at: read_metadata(at / "a.png"), RequestError, {"path": "a.png"}),
        (lambda at: read_prompts_file("a.txt"), RequestError, {"argument": "--prompts-file"}),
        (lambda at: parse_axis("stops=1"), RequestError, {"argument": "stops"}),
        (lambda at: parse_axis("steps=a"), RequestError, {"argument": "num_inference_steps"}),
    ],
)
def test_other_mistakes(
    tmp_path: Path, mistake: Callable[[Path], object], kind: type[SdrtError], expected: dict[str, str]
) -> None:
    with pytest.raises(kind) as caught:
        mistake(tmp_path)
    for name, value in expected.items():
        assert getattr(caught.value, name) == (tmp_path / value if name == "path" else value)
    assert caught.value.fits


def _opened(model: Any, **options: Any) -> None:
    StableDiffusionPipeline.from_pretrained(model, **options)


def _constructions(root: Path) -> list[tuple[str, ast.Call]]:
    """Every call that makes an error of sdrt, as source and as a node."""
    found = []
    for path in sorted(root.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in errors.__all__:
                found.append((f"{path.name}: {ast.get_source_segment(source, node)}", node))
    return found


def test_every_error_has_facts() -> None:
    """`expected` and `advised` always give `fits`."""
    made = _constructions(Path(sdrt.__file__).parent)
    assert made
    # A keyword without a name is **facts.
    bare = [text for text, node in made if not {word.arg for word in node.keywords} & {*FACTS, None}]
    assert [text for text in bare if not any(reason in text for reason in WITHOUT_FACTS)] == []
    assert len(bare) == len(WITHOUT_FACTS)


@pytest.mark.parametrize("kind", TYPES)
def test_what_a_benchmark_s_process_tells_is_raised_again(kind: type[SdrtError]) -> None:
    with pytest.raises(kind, match="unet: is damaged") as caught:
        _heard({"failed": kind.__name__, "message": "unet: is damaged"}, pytest.fail)
    assert type(caught.value) is kind
    assert facts(caught.value) == dict.fromkeys(FACTS)
    told = FACTS | {"path": str(FACTS["path"])}
    with pytest.raises(kind) as caught:
        _heard({"failed": kind.__name__, "message": "unet: is damaged", "facts": told}, pytest.fail)
    assert facts(caught.value) == FACTS
