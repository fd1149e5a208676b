"""Errors carry their facts beside their message."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import errors
from sdrt.benchmark.runner import _heard
from sdrt.common.notices import Notices
from sdrt.errors import ComponentError, OutOfMemoryError, RequestError, SdrtError, UnsupportedModelError
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


@pytest.mark.parametrize("kind", TYPES)
def test_what_a_benchmark_s_process_tells_is_raised_again(kind: type[SdrtError]) -> None:
    with pytest.raises(kind, match="unet: is damaged") as caught:
        _heard({"failed": kind.__name__, "message": "unet: is damaged"}, pytest.fail)
    assert type(caught.value) is kind
