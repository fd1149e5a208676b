"""Misspelt and borrowed names, each with an error that says what to write; copies and pickles of pipelines."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

import sdrt
from sdrt import RequestError, SdrtError, StableDiffusionPipeline
from sdrt.cli.generate.variations import parse_axis
from sdrt.schedulers import EulerDiscreteScheduler  # type: ignore[attr-defined]


@pytest.fixture
def pipeline(tiny_model: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        tiny_model, provider="cpu", threads=1, notify=lambda _: None
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("EulerDiscreteSchduler", "EulerDiscreteScheduler"),
        ("EulerDiscretScheduler", "EulerDiscreteScheduler"),
        ("DPMSolverMultistepSheduler", "DPMSolverMultistepScheduler"),
        ("StableDifusionPipelin", "StableDiffusionPipeline"),
    ],
)
def test_misspelt_imports(name: str, meant: str) -> None:
    with pytest.raises(SdrtError, match=rf"has no {name}: did you mean {meant}\?"):
        getattr(sdrt, name)


def test_schedulers_that_sdrt_lacks_are_not_taken_for_others() -> None:
    for name in ("KarrasVeScheduler", "DDIMInverseScheduler", "RePaintScheduler"):
        with pytest.raises(SdrtError, match="a scheduler that sdrt lacks"):
            getattr(sdrt, name)


def test_schedulers_come_from_their_package_too() -> None:
    assert repr(EulerDiscreteScheduler) == "<sdrt.EulerDiscreteScheduler>"
    assert not hasattr(sdrt.schedulers, "KarrasVeScheduler")


def test_assigning_to_a_scheduler(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(SdrtError, match=r"no timesteps .*write scheduler\.plan"):
        pipeline.scheduler.timesteps = [1]  # type: ignore[attr-defined]
    with pytest.raises(
        SdrtError, match=r"Scheduler\.settings cannot be assigned: make another with from_config"
    ):
        pipeline.scheduler.settings = None  # type: ignore[assignment,misc]
    assert copy.deepcopy(pipeline.scheduler).settings == pipeline.scheduler.settings


def test_copies_of_a_pipeline(pipeline: StableDiffusionPipeline) -> None:
    other = copy.copy(pipeline)
    own = pipeline.scheduler.name
    other.scheduler = "ddim"
    assert pipeline.scheduler.name == own != other.scheduler.name
    assert other.provider == "cpu"
    for attempt in (copy.deepcopy, pickle.dumps):
        with pytest.raises(RequestError, match=r"cannot be pickled or copied; call .*from_pretrained"):
            attempt(pipeline)


@pytest.mark.parametrize(
    ("axis", "meant"),
    [
        ("cfg=1,2", "guidance_scale"),
        ("sampler_name=euler", "scheduler"),
        ("denoise=0.5,0.6", "strength"),
        ("stepz=1,2", "steps"),
    ],
)
def test_axes_under_other_names(axis: str, meant: str) -> None:
    with pytest.raises(RequestError, match=rf"unknown setting .* \(did you mean {meant}\?\)"):
        parse_axis(axis)


def test_a_misspelt_spacing(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(RequestError, match=r"unknown spacing 'karas' \(did you mean karras\?\)"):
        pipeline.scheduler_for("euler", "karas")
