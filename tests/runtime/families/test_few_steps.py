"""Few-step models: what their names and files say, and which timesteps that gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdrt.families.defaults import Defaults
from sdrt.families.few_steps import FEW_STEPS, few_steps_of, few_steps_scheduler
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from sdrt.schedulers import Scheduler

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
EULER = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", **BETAS}


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("stabilityai/sd-turbo", "SD-Turbo"),
        ("stabilityai/sdxl-turbo", "SDXL-Turbo"),
        ("sd_xl_turbo_1.0_fp16.safetensors", "SDXL-Turbo"),
        ("sdxl-turbo-random-0", "SDXL-Turbo"),
        ("sdxl_lightning_4step.safetensors", "SDXL-Lightning for 4 steps"),
        ("sdxl_lightning_1step_x0.safetensors", "SDXL-Lightning for 1 step"),
        ("models\\juggernautXL-Lightning-8steps", "SDXL-Lightning for 8 steps"),
        ("Hyper-SDXL-1step-Unet-Comfyui.fp16.safetensors", "Hyper-SDXL for 1 step"),
        ("dreamshaper-Hyper-SD15-8steps-CFG", "Hyper-SD for 8 steps with guidance"),
        ("someone/Hyper-SDXL-4steps-merged", "Hyper-SD for 4 steps"),
        ("dmd2_sdxl_1step_unet_fp16", "DMD2 for 1 step"),
        ("dmd2_sdxl_4step", "DMD2 for 4 steps"),
        ("cyberrealisticXL_dmd2.safetensors", "DMD2 for 4 steps"),
        ("tcd_sdxl.safetensors", "TCD"),
        ("someone/dreamshaper-8-TCD-merged", "TCD"),
        ("dreamshaper_8LCM.safetensors", "LCM"),
        ("Hyper-SDXL-8steps-tcd.safetensors", "Hyper-SD for 8 steps"),
    ],
)
def test_names(name: str, title: str) -> None:
    row = few_steps_of(name)
    assert row is not None
    assert row.title == title


@pytest.mark.parametrize(
    "name",
    [
        "stable-diffusion-v1-5",
        "lightning-storm",
        "juggernautXL_v9Lightning",
        "dreamshaperXL_v21TurboDPMSDE",
        "hyperrealism_4steps",
        "turbo",
        "Hyper-SDXL-1step-lora",
        "tcdesign",
        "",
        None,
    ],
)
def test_names_that_say_too_little(name: str | None) -> None:
    assert few_steps_of(name) is None


# The timesteps that each was trained on, of the papers and cards. LCM and TCD choose 4 of every twentieth.
TRAINED = {
    "SD-Turbo": [999],
    "SDXL-Turbo": [999],
    "SDXL-Lightning for 1 step": [999],
    "SDXL-Lightning for 2 steps": [999, 499],
    "SDXL-Lightning for 4 steps": [999, 749, 499, 249],
    "SDXL-Lightning for 8 steps": [999, 874, 749, 624, 499, 374, 249, 124],
    "Hyper-SDXL for 1 step": [800],
    "Hyper-SD for 2 steps": [999, 499],
    "Hyper-SD for 4 steps": [999, 749, 499, 249],
    "Hyper-SD for 8 steps": [999, 874, 749, 624, 499, 374, 249, 124],
    "Hyper-SD for 8 steps with guidance": [999, 874, 749, 624, 499, 374, 249, 124],
    "Hyper-SD for 12 steps with guidance": [999, 916, 832, 749, 666, 582, 499, 416, 332, 249, 166, 82],
    "DMD2 for 1 step": [399],
    "DMD2 for 4 steps": [999, 749, 499, 249],
    "LCM": [999, 759, 499, 259],
    "TCD": [999, 759, 499, 259],
}


@pytest.mark.parametrize("row", FEW_STEPS, ids=lambda row: row.title)
def test_a_single_file_runs_the_timesteps_that_it_was_trained_on(row: Any) -> None:
    scheduler = Scheduler.from_config({**EULER, **row.scheduler}).with_levels(timesteps=row.timesteps)
    plan = scheduler.plan(row.num_inference_steps)
    assert [round(t) for t in plan.timesteps] == TRAINED[row.title]
    assert row.source.startswith("https://")


@pytest.mark.parametrize(
    ("config", "steps", "timesteps"),
    [
        # SDXL's own config: one step begins where almost no noise is left, and four never see pure noise.
        (EULER, 1, [1]),
        (EULER, 4, [751, 501, 251, 1]),
        # LCM's steps are every twentieth, so that four of them are not DMD2's; and trailing is not on their grid.
        ({**BETAS, "_class_name": "LCMScheduler"}, 4, [999, 759, 499, 259]),
        ({**BETAS, "_class_name": "LCMScheduler"}, 1, [999]),
    ],
)
def test_what_breaks_them(config: dict[str, Any], steps: int, timesteps: list[int]) -> None:
    assert [round(t) for t in Scheduler.from_config(config).plan(steps).timesteps] == timesteps


def defaults(
    name: str | None = None,
    scheduler: dict[str, Any] | None = None,
    denoiser: dict[str, Any] | None = None,
    index: dict[str, Any] | None = None,
) -> Defaults:
    return Defaults.of(
        STABLE_DIFFUSION.tasks[0],
        STABLE_DIFFUSION,
        index=index or {"_class_name": "StableDiffusionPipeline"},
        denoiser=denoiser or {},
        scheduler=EULER if scheduler is None else scheduler,
        names=(name,),
    )


def test_what_nothing_speaks_against_is_diffusers() -> None:
    made = defaults("stable-diffusion-v1-5")
    assert (made.num_inference_steps, made.guidance_scale, made.timesteps) == (50, 7.5, None)
    assert (made.origin, made.advice, made.recorded()) == ("", "", {})


@pytest.mark.parametrize(
    "given",
    [
        {"denoiser": {"time_cond_proj_dim": 256}},
        {"index": {"_class_name": "LatentConsistencyModelPipeline"}},
        {"index": {"_class_name": "ORTLatentConsistencyModelPipeline"}, "name": "sdxl-turbo"},
    ],
    ids=str,
)
def test_latent_consistency_models_are_known_by_their_u_net_or_class(given: dict[str, Any]) -> None:
    made = defaults(**given)
    assert (made.num_inference_steps, made.guidance_scale) == (4, 8.5)
    assert made.origin == "it is a latent consistency model"


@pytest.mark.parametrize(("name", "guidance"), [("LCMScheduler", 1.0), ("TCDScheduler", 0.0)])
def test_the_scheduler_of_distilled_models(name: str, guidance: float) -> None:
    made = defaults(scheduler={"_class_name": name})
    assert (made.num_inference_steps, made.guidance_scale) == (4, guidance)
    assert name in made.origin


def test_the_name_that_diffusers_wrote_into_the_index_counts() -> None:
    made = defaults("mine", index={"_class_name": "A", "_name_or_path": "stabilityai/sd-turbo"})
    assert (made.num_inference_steps, made.guidance_scale) == (1, 0.0)
    assert made.origin == "its name says that it is SD-Turbo (https://huggingface.co/stabilityai/sd-turbo)"


@pytest.mark.parametrize(
    ("name", "scheduler", "advice"),
    [
        ("sdxl-turbo", EULER, "timestep_spacing 'leading', but .* 'trailing'; use --spacing trailing"),
        ("sdxl-turbo", EULER | {"timestep_spacing": "trailing"}, "^$"),
        (
            "sdxl_lightning_1step_x0",
            EULER | {"timestep_spacing": "trailing"},
            "prediction_type 'epsilon', but",
        ),
        ("dmd2", EULER, "EulerDiscreteScheduler, but DMD2 .*; use --scheduler lcm"),
        ("dmd2", {"_class_name": "LCMScheduler"}, "^$"),
        ("tcd_sdxl", EULER, "EulerDiscreteScheduler, but TCD .*; use --scheduler tcd"),
        ("tcd_sdxl", {"_class_name": "TCDScheduler"}, "^$"),
        ("Hyper-SDXL-4steps", {"_class_name": "TCDScheduler"}, "^$"),
    ],
)
def test_a_scheduler_that_does_not_fit_is_named(name: str, scheduler: dict[str, Any], advice: str) -> None:
    import re

    assert re.search(advice, defaults(name, scheduler).advice)


def test_what_a_manifest_records_is_read_back() -> None:
    made = defaults("dmd2")
    again = defaults().with_recorded(made.recorded())
    assert (again.num_inference_steps, again.timesteps, again.guidance_scale, again.origin) == (
        4,
        (999, 749, 499, 249),
        0.0,
        made.origin,
    )
    assert defaults().with_recorded({"guidance_scale": 2}).num_inference_steps == 50


def test_a_checkpoint_without_a_scheduler_gets_the_row_s() -> None:
    assert few_steps_scheduler("a.safetensors", "SDXL Lightning 4step") == {
        "_class_name": "EulerDiscreteScheduler",
        "timestep_spacing": "trailing",
    }
    assert few_steps_scheduler("a.safetensors", "") == {}


def test_the_document_has_each_row() -> None:
    text = (Path(__file__).parents[3] / "docs" / "few-steps.md").read_text(encoding="utf-8")
    for row in FEW_STEPS:
        name = row.scheduler["_class_name"].removesuffix("Scheduler")
        levels = f", timesteps {', '.join(map(str, row.timesteps))}" if row.timesteps else ""
        levels = ", trailing" if "timestep_spacing" in row.scheduler else levels
        values = f"{row.num_inference_steps} | {row.guidance_scale:g} | {name}{levels}"
        assert f"| [{row.title}]({row.source}) | {values} |" in text
