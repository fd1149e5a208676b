"""Scenes, their captions and images: deterministic, varied, and never a held-out one in training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdrt_models.shapes.captions import caption
from sdrt_models.shapes.drawing import SIZE, Place, draw_scene, figure_mask, place_things
from sdrt_models.shapes.evaluate import held_out_prompts
from sdrt_models.shapes.recognise import recognise
from sdrt_models.shapes.scenes import (
    COLOURS,
    FILLS,
    HELD_OUT_PAIRS,
    SHAPES,
    SIZES,
    Background,
    Scene,
    Thing,
    is_held_out,
    sample_scene,
)

COUNT = 2000


def scenes(*, held_out: bool = False) -> list[Scene]:
    return [sample_scene(np.random.default_rng((1, i)), held_out=held_out) for i in range(COUNT)]


def circle(**changes: str) -> Thing:
    return replace(Thing(colour="red", shape="circle", size="small", fill="solid"), **changes)


def test_training_never_draws_what_is_held_out() -> None:
    for scene in scenes():
        assert not is_held_out(scene)
        assert not any((thing.colour, thing.shape) in HELD_OUT_PAIRS for thing in scene.things)
    assert all(map(is_held_out, scenes(held_out=True)))


def test_training_sees_every_word() -> None:
    things = [thing for scene in scenes() for thing in scene.things]
    for key, words in {"colour": COLOURS, "shape": SHAPES, "size": SIZES, "fill": FILLS}.items():
        assert {getattr(thing, key) for thing in things} == set(words)
    pairs = {(thing.colour, thing.shape) for thing in things}
    assert len(pairs) == len(COLOURS) * len(SHAPES) - len(HELD_OUT_PAIRS)


def test_what_training_is_told_never_reads_like_a_prompt_of_the_evaluation() -> None:
    prompts = {text for text, _ in held_out_prompts(200)}
    for index in range(COUNT * 5):
        rng = np.random.default_rng((2, index))
        scene = sample_scene(rng)
        assert not prompts & {caption(scene, rng) for _ in range(4)}


def test_the_map_of_what_lies_where_fits_the_image() -> None:
    for index, scene in enumerate(scenes()[:50]):
        x = np.arange(SIZE)
        places = place_things(scene, np.random.default_rng(index))
        seen = recognise(draw_scene(scene, np.random.default_rng(index)))
        masks = [figure_mask(thing.shape, place) for thing, place in zip(scene.things, places, strict=True)]
        there = sorted((float((mask * x).sum() / mask.sum()) for mask in masks), reverse=True)
        found = sorted((thing.x for thing in seen.things), reverse=True)
        assert found == pytest.approx(there, abs=1.0)


def test_held_out_is_not_only_the_pairs() -> None:
    new = [
        scene
        for scene in scenes(held_out=True)
        if not any((thing.colour, thing.shape) in HELD_OUT_PAIRS for thing in scene.things)
    ]
    assert 0.2 < len(new) / COUNT < 0.8


@pytest.mark.parametrize(("relation", "inverse"), [("left of", "right of"), ("above", "below")])
def test_naming_the_other_thing_first_does_not_make_it_another_scene(relation: str, inverse: str) -> None:
    plain = Background(shades=("white",))
    for colour in COLOURS:
        for shape in SHAPES[1:]:
            first, second = circle(colour=colour), circle(shape=shape)
            one = Scene(things=(first, second), relation=relation, background=plain)
            other = Scene(things=(second, first), relation=inverse, background=plain)
            assert is_held_out(one) == is_held_out(other)


def test_everything_is_decided_by_the_seed() -> None:
    def made(seed: int) -> tuple[Scene, str, bytes]:
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng)
        return scene, caption(scene, rng), draw_scene(scene, rng).tobytes()

    assert made(4) == made(4)
    assert made(4) != made(5)


def test_captions_say_all_and_only_what_is_there() -> None:
    words = {*COLOURS, *SHAPES, "violet", "turquoise", "disc", "donut", "plus"}
    names = {"violet": "purple", "turquoise": "cyan", "disc": "circle", "donut": "ring", "plus": "cross"}
    for index, scene in enumerate(scenes()[:500]):
        text = caption(scene, np.random.default_rng(index), complete=True)
        said = sorted(names.get(word, word) for word in text.split() if word in words)
        there = sorted(word for thing in scene.things for word in (thing.colour, thing.shape))
        assert said == there, text


def test_a_caption_keeps_the_relation_whichever_thing_it_names_first() -> None:
    first, second = circle(), circle(colour="blue", shape="square")
    scene = Scene(things=(first, second), relation="left of", background=Background(shades=("white",)))
    texts = {caption(scene, np.random.default_rng(index), complete=True) for index in range(300)}
    assert len(texts) > 50
    for text in texts:
        red, blue = text.index("red"), text.index("blue")
        side, opposite = ("left", "right") if red < blue else ("right", "left")
        between = text[min(red, blue) : max(red, blue)]
        assert side in between, text
        assert opposite not in between, text


def test_images_differ_in_place_and_size_and_keep_inside() -> None:
    scene = Scene(things=(circle(),), background=Background(shades=("white",)))
    images = [np.asarray(draw_scene(scene, np.random.default_rng(i)).convert("L")) for i in range(20)]
    assert len({image.tobytes() for image in images}) == 20
    for image in images:
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert edge.min() > 230
        assert image.min() < 150


@pytest.mark.parametrize("shape", SHAPES)
def test_figures_fill_their_place_and_have_soft_edges(shape: str) -> None:
    mask = figure_mask(shape, Place(x=64, y=64, radius=40))
    assert mask.shape == (SIZE, SIZE)
    rows, columns = np.nonzero(mask > 0.5)
    longer = max(np.ptp(rows), np.ptp(columns)) + 1
    assert 70 <= longer <= 81
    assert ((mask > 0) & (mask < 1)).any()
