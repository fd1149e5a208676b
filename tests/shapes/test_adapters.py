"""The embedded model with its adapters, judged by what the images show. Bounds are below what MODEL_CARD.md has."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

import sdrt_models
from sdrt import StableDiffusionPipeline
from sdrt_models.shapes.evaluate_adapters import (
    Measured,
    held_out,
    measure_controlnet,
    measure_ip_adapter,
    measure_lora,
    measure_others,
    overlap,
    validate_moons,
)
from sdrt_models.shapes.scenes import MOON, is_held_out
from sdrt_models.shapes.scoring import Rate

WHOLE = 0.8


def rate(measured: Measured, name: str) -> Rate:
    found = measured[name]
    assert isinstance(found, Rate)
    return found


def pipeline(**options: object) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained("shapes", provider="cpu", notify=lambda _: None, **options)


@pytest.fixture(scope="module")
def shapes() -> Iterator[StableDiffusionPipeline]:
    with pipeline() as made:
        yield made


def test_the_recogniser_tells_moons_from_what_the_model_knows() -> None:
    drawn = validate_moons(100)
    assert rate(drawn["drawn"], "moon").share == 1.0
    assert rate(drawn["drawn"], "shape").share >= 0.99
    assert rate(drawn["drawn, no moon asked for"], "moon").right == 0


def test_the_prompts_were_never_trained() -> None:
    moons = held_out(100, moons=True)
    assert all(is_held_out(case.scene) for case in moons)
    assert all(any(thing.shape == MOON for thing in case.scene.things) for case in moons)


@pytest.mark.full
def test_the_lora_draws_moons_and_the_model_does_not(shapes: StableDiffusionPipeline) -> None:
    found = measure_lora(shapes, sdrt_models.adapter("moon"), 16, (0.0, 1.0))
    assert rate(found["weight 0"], "moon").right == 0
    assert rate(found["weight 1"], "moon").share >= WHOLE
    assert rate(found["weight 1"], "colour").share >= 0.8


@pytest.mark.full
def test_the_controlnet_draws_things_where_their_edges_are() -> None:
    with pipeline(controlnet=sdrt_models.adapter("edges")) as controlled:
        found = measure_controlnet(controlled, 16)
    assert found["scale 0"]["overlap"] < 0.4
    assert found["scale 1"]["overlap"] >= 0.8
    assert rate(found["scale 1"], "colour").share >= 0.9


@pytest.mark.full
def test_most_outlines_are_met_and_the_text_is_still_obeyed() -> None:
    with pipeline(controlnet=sdrt_models.adapter("edges")) as controlled:
        found = measure_controlnet(controlled, 64, (1.0,))["scale 1"]
    assert found["overlap"] >= 0.82
    assert rate(found, "met").share >= 0.75
    assert all(rate(found, name).share >= 0.9 for name in ("colour", "shape", "size", "fill", "background"))


@pytest.mark.full
def test_the_ip_adapter_draws_what_an_image_shows() -> None:
    with pipeline() as prompted:
        found = measure_ip_adapter(prompted, sdrt_models.adapter("likeness"), 16)
    assert rate(found["scale 0"], "both").share < 0.3
    assert rate(found["scale 1"], "both").share >= 0.6


@pytest.mark.full
def test_most_image_prompts_are_met() -> None:
    with pipeline() as prompted:
        found = measure_ip_adapter(prompted, sdrt_models.adapter("likeness"), 64, (1.0,))["scale 1"]
    assert rate(found, "both").share >= 0.7
    assert rate(found, "colour").share >= 0.9


@pytest.mark.full
def test_half_a_weight_draws_fewer_moons_and_other_prompts_get_none(shapes: StableDiffusionPipeline) -> None:
    lora = sdrt_models.adapter("moon")
    found = measure_lora(shapes, lora, 48)
    none, half, whole = (rate(found[f"weight {weight}"], "moon").share for weight in ("0", "0.5", "1"))
    assert none == 0 < half < whole
    others = measure_others(shapes, lora, 48, (1.0,))
    assert rate(others["weight 1, no moon asked for"], "moon").share <= 0.1
    assert rate(others["weight 1, no moon asked for"], "shape").share >= 0.8


def test_a_weight_of_0_is_the_model_itself(shapes: StableDiffusionPipeline) -> None:
    with_it, without = (
        np.asarray(shapes("a yellow moon", num_inference_steps=4, seed=0, **lora).images[0])
        for lora in ({"lora": f"{sdrt_models.adapter('moon')}:0"}, {})
    )
    np.testing.assert_array_equal(with_it, without)


def test_overlap_is_1_for_the_same_things_and_0_for_none() -> None:
    (case,) = held_out(1)
    assert overlap(case.drawn(), case.drawn()) == 1.0
    assert overlap(case.drawn(), Image.new("RGB", (128, 128))) == 0.0


def test_they_are_small() -> None:
    folder = sdrt_models.adapter("moon").parent
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 6e6
