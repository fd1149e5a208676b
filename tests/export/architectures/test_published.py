"""Published architectures have the tensors of diffusers' and transformers' classes, and the published sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdrt.schedulers import Scheduler
from sdrt_export.architectures.published import PUBLISHED
from sdrt_export.components import parts_of
from sdrt_export.components.outline import num_parameters, tensors_of

# Of U-Nets. BK-SDM: the files on the hub. SDXL and its refiner, SSD-1B, Vega: the papers, which round.
U_NETS = {
    "sd15": 859_520_964,
    "sd21": 865_910_724,
    "bk-sdm-base": 579_384_964,
    "bk-sdm-small": 482_346_884,
    "bk-sdm-tiny": 323_384_964,
    "sdxl": 2_567_463_684,
}
ROUNDED = {"sdxl-refiner": 2.26e9, "ssd-1b": 1.33e9, "segmind-vega": 0.745e9}


def distinct_parts() -> dict[str, tuple[str, dict[str, Any]]]:
    """Each config of a part once, with an architecture that has it in its id."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, row in PUBLISHED.items():
        for part in parts_of(row.family):
            if (part, dict(row.configs[part])) not in found.values():
                found[f"{name}/{part}"] = part, dict(row.configs[part])
    return found


def module(part: str, config: dict[str, Any]) -> torch.nn.Module:
    with torch.device("meta"):
        if part == "unet":
            return UNet2DConditionModel.from_config(config)
        if part == "vae":
            return AutoencoderKL.from_config(config)
        kind = CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel
        return kind(CLIPTextConfig(**config))


@pytest.mark.parametrize("place", distinct_parts())
def test_each_part_has_the_tensors_of_its_class(place: str) -> None:
    part, config = distinct_parts()[place]
    components = parts_of(PUBLISHED[place.split("/")[0]].family)[part]
    wanted = {name: tuple(value.shape) for name, value in module(part, config).named_parameters()}
    assert tensors_of(components, config) == wanted


def u_net_numbers(name: str) -> int:
    return num_parameters(PUBLISHED[name].family, PUBLISHED[name].configs)["unet"]


@pytest.mark.parametrize(("name", "count"), U_NETS.items())
def test_u_nets_have_as_many_numbers_as_published(name: str, count: int) -> None:
    assert u_net_numbers(name) == count


@pytest.mark.parametrize(("name", "count"), ROUNDED.items())
def test_u_nets_have_about_as_many_numbers_as_papers_say(name: str, count: float) -> None:
    assert u_net_numbers(name) == pytest.approx(count, rel=0.005)


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_has_a_scheduler_that_sdrt_runs_and_says_what_it_is(name: str) -> None:
    row = PUBLISHED[name]
    assert row.title
    Scheduler.from_config(row.configs["scheduler"]).plan(4)
