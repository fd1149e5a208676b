"""diffusers' scheduler classes: sdrt's own of these names, and diffusers' objects, mean the same."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import diffusers
import pytest

import sdrt
from sdrt import RequestError, SdrtError, StableDiffusionPipeline, UnsupportedModelError
from sdrt.schedulers import SAMPLERS, Scheduler

# diffusers hands tensors to NumPy in ways that NumPy 2 deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed:FutureWarning"),
]
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("EulerDiscreteScheduler", {}),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    ("EulerAncestralDiscreteScheduler", {}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    ("DPMSolverSinglestepScheduler", {}),
    ("DDIMScheduler", {"clip_sample": True}),
    ("DDIMScheduler", {"set_alpha_to_one": False}),
    ("LMSDiscreteScheduler", {"use_exponential_sigmas": True}),
    ("UniPCMultistepScheduler", {"solver_type": "bh1"}),
    ("HeunDiscreteScheduler", {"beta_end": 0.02}),
    ("LCMScheduler", {}),
]


@pytest.fixture
def own(tiny_model: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        tiny_model, provider="cpu", threads=1, notify=lambda _: None
    )


@pytest.mark.parametrize(("name", "changes"), CASES, ids=str)
def test_from_config(own: StableDiffusionPipeline, name: str, changes: dict[str, Any]) -> None:
    config = own.scheduler.config
    ours = getattr(sdrt, name).from_config(config, **changes)
    theirs = getattr(diffusers, name).from_config(config, **changes)
    own.scheduler = theirs
    assert own.scheduler.settings == ours.settings
    assert own.scheduler.sampler is ours.sampler
    assert isinstance(ours, getattr(sdrt, name))
    assert not isinstance(ours, sdrt.TCDScheduler)
    # A class that is made of this one takes its own defaults, as diffusers' classes do.
    again = diffusers.DDPMScheduler.from_config(theirs.config)
    own.scheduler = again
    assert own.scheduler.settings == sdrt.DDPMScheduler.from_config(ours.config).settings


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_construction(own: StableDiffusionPipeline, name: str) -> None:
    own.scheduler = getattr(diffusers, name)(**BETAS)
    assert own.scheduler.settings == getattr(sdrt, name)(**BETAS).settings
    # The model's own scheduler has another config, so metadata cannot say a name.
    assert own.scheduler.source == "a config in memory"


def test_a_scheduler_of_the_models_config_has_a_name(own: StableDiffusionPipeline) -> None:
    own.scheduler = sdrt.EulerDiscreteScheduler.from_config(own.scheduler.config, use_karras_sigmas=True)
    made = own("a", num_inference_steps=2, seed=0).metadata(0)
    assert (made.settings["Sampler"], made.settings["Schedule type"]) == ("Euler", "Karras")
    assert "Scheduler config" not in made.settings
    by_name = own("a", num_inference_steps=2, seed=0, scheduler="Euler Karras").metadata(0)
    assert made.settings == by_name.settings


def test_from_pretrained(own: StableDiffusionPipeline, tiny_model: Path) -> None:
    read = sdrt.PNDMScheduler.from_pretrained(tiny_model, subfolder="scheduler")
    theirs = diffusers.PNDMScheduler.from_pretrained(tiny_model, subfolder="scheduler")
    own.scheduler = theirs
    assert own.scheduler.settings == read.settings
    with pytest.raises(RequestError, match="cannot be read"):
        sdrt.PNDMScheduler.from_pretrained("nowhere")


def test_what_a_class_cannot_do(own: StableDiffusionPipeline) -> None:
    with pytest.raises(UnsupportedModelError, match="UnCLIPScheduler"):
        own.scheduler = diffusers.UnCLIPScheduler()
    with pytest.raises(UnsupportedModelError, match="interpolation_type"):
        sdrt.EulerDiscreteScheduler.from_config(own.scheduler.config, interpolation_type="log_linear")
    with pytest.raises(RequestError, match="config is 'x': expected a mapping"):
        sdrt.EulerDiscreteScheduler.from_config("x")
    with pytest.raises(SdrtError, match=r"SchedulerClass has no load_config"):
        sdrt.EulerDiscreteScheduler.load_config  # noqa: B018
    with pytest.raises(SdrtError, match="takes no arguments by position"):
        sdrt.EulerDiscreteScheduler({})


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_config_is_read_back_whole(own: StableDiffusionPipeline, name: str) -> None:
    """A scheduler has a config of its class, which is read as the same scheduler, or it has none."""
    row, found = SAMPLERS[name], 0
    if not row.class_name:
        with pytest.raises(SdrtError, match="has no config, because no class of diffusers has its results"):
            own.scheduler_for(name).config  # noqa: B018
        return
    for spacing in (None, *row.spacings):
        try:
            scheduler = own.scheduler_for(name, spacing)
        except RequestError:
            assert row.is_for_edm or row.is_for_flow
            return
        if not hasattr(scheduler, "config"):
            assert spacing is not None
            continue
        config, found = scheduler.config, found + 1
        assert config._class_name == row.class_name
        if row.own_levels:
            again = Scheduler.from_config(json.loads(json.dumps(config)))
            assert (again.name, again.settings) == (name, scheduler.settings)
        getattr(diffusers, row.class_name).from_config(config)
    assert found


def test_a_config_cannot_be_changed(own: StableDiffusionPipeline) -> None:
    config = own.scheduler.config
    for change in (
        lambda: config.__setitem__("beta_end", 1),
        lambda: config.update(beta_end=1),
        lambda: config.pop("beta_end"),
        lambda: setattr(config, "beta_end", 1),
    ):
        with pytest.raises(RequestError, match=r"cannot be changed: assign pipeline\.scheduler = "):
            change()
    with pytest.raises(SdrtError, match=r"scheduler\.config has no beta_ent: did you mean beta_end\?"):
        config.beta_ent  # noqa: B018
    for again in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert again == config
        assert type(again) is type(config)
    own.scheduler = {**config, "beta_end": 0.02}
    assert own.scheduler.config["beta_end"] == 0.02
