"""The recogniser on images of which is known what they show, and the scores made from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sdrt_models.shapes.drawing import draw_scene
from sdrt_models.shapes.recognise import recognise
from sdrt_models.shapes.scenes import RELATIONS, Background, Scene, Thing, sample_scene
from sdrt_models.shapes.scoring import ATTRIBUTES, Rate, answers, rates

WHITE = Background(shades=("white",))
STAR = Thing(colour="red", shape="star", size="large", fill="solid")
RING = Thing(colour="blue", shape="ring", size="small", fill="solid")


def drawn(count: int) -> list[tuple[Scene, Image.Image]]:
    made = []
    for index in range(count):
        rng = np.random.default_rng((3, index))
        scene = sample_scene(rng, held_out=bool(index % 2))
        made.append((scene, draw_scene(scene, rng)))
    return made


def test_it_reads_drawn_images() -> None:
    found = rates(drawn(300))
    for name in ATTRIBUTES:
        assert found[name].share >= 0.99, name


def test_it_sees_nothing_on_a_background() -> None:
    for shades in (("white",), ("black",), ("gray",)):
        image = draw_scene(Scene(things=(), background=Background(shades=shades)), np.random.default_rng(0))
        seen = recognise(image)
        assert (seen.things, seen.shades) == ((), shades)


def test_noise_is_right_no_more_often_than_by_chance() -> None:
    scenes = [sample_scene(np.random.default_rng((4, i)), held_out=True) for i in range(200)]
    noise = np.random.default_rng(0).integers(0, 256, (200, 128, 128, 3), dtype=np.uint8)
    found = rates(zip(scenes, map(Image.fromarray, noise), strict=True))
    for name in ("colour", "shape"):
        assert found[name].share < 0.25, name
    for name in ("relation", "everything"):
        assert found[name].share < 0.1, name


def test_a_relation_holds_between_things_that_can_be_told_apart() -> None:
    asked = Scene(things=(STAR, RING), relation="left of", background=WHITE)
    blob = Thing(colour="green", shape="circle", size="large", fill="solid")
    for shown, holds in (
        ((STAR, RING), True),
        ((STAR, blob), False),  # of the ring nothing is there
        ((blob, blob), False),
        ((replace(STAR, shape="heart"), replace(RING, colour="green")), True),
        ((replace(STAR, shape="ring"), replace(RING, shape="star")), False),  # either could be the star
    ):
        image = draw_scene(replace(asked, things=shown), np.random.default_rng(0))
        assert answers(asked, recognise(image))["relation"] == [holds], shown


@pytest.mark.parametrize("relation", RELATIONS)
def test_each_fault_is_held_against_its_attribute(relation: str) -> None:
    scene = Scene(things=(STAR, RING), relation=relation, background=WHITE)
    wrong = {
        "colour": replace(scene, things=(replace(STAR, colour="green"), RING)),
        "shape": replace(scene, things=(replace(STAR, shape="heart"), RING)),
        "size": replace(scene, things=(replace(STAR, size="small"), RING)),
        "fill": replace(scene, things=(replace(STAR, fill="striped"), RING)),
        "relation": replace(scene, things=(RING, STAR)),
        "background": replace(scene, background=Background(shades=("black",))),
    }
    for name, shown in wrong.items():
        judged = answers(scene, recognise(draw_scene(shown, np.random.default_rng(0))))
        faults = {key for key, values in judged.items() if not all(values)}
        assert faults == {name, "everything"}, name


def test_a_missing_and_a_surplus_thing_are_miscounted() -> None:
    two = Scene(things=(STAR, RING), relation="above", background=WHITE)
    one = Scene(things=(STAR,), background=WHITE)
    missing = answers(two, recognise(draw_scene(one, np.random.default_rng(0))))
    assert missing["count"] == [False]
    assert sorted(missing["colour"]) == [False, True]
    assert missing["relation"] == [False]
    surplus = answers(one, recognise(draw_scene(two, np.random.default_rng(0))))
    assert (surplus["count"], surplus["colour"], surplus["everything"]) == ([False], [True], [False])


def test_larger_images_are_read_too() -> None:
    scene, image = drawn(1)[0]
    larger = image.resize((512, 512), Image.Resampling.NEAREST)
    assert answers(scene, recognise(larger))["everything"] == [True]


def test_the_interval_is_wilson_s() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81/263, 15/148, 0/20.
    for right, total, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
    ):
        rate = Rate(right=right, total=total)
        assert rate.low == pytest.approx(low, abs=1e-4)
        assert rate.high == pytest.approx(high, abs=1e-4)
    assert (Rate(right=0, total=0).low, Rate(right=0, total=0).high) == (0.0, 1.0)
