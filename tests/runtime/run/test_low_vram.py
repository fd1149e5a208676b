"""`low_vram`: the images stay the same, with one component in memory at a time."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import Request, RequestError
from sdrt.onnx.providers import SessionConfig
from tests.runtime.run.low_vram_calls import CALL, pipeline


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"guidance_scale": 1.0},
        {"num_images_per_prompt": 3},
        {"prompt": "a AND b:0.5"},
        {"prompt": "[a:b:0.5]"},
        {"prompt": "word " * 100},
        {"hires_scale": 1.5},
        {"width": 96, "tile_size": 64},
    ],
    ids=str,
)
def test_the_image_is_the_same(tiny_model: Path, extra: dict[str, Any]) -> None:
    """Single rows and tiles sum floats in another order. The largest measured difference is 1e-6."""
    call = {"prompt": "a lighthouse", **CALL, **extra}
    expected = pipeline(tiny_model)(**call).images
    np.testing.assert_allclose(pipeline(tiny_model, low_vram=True)(**call).images, expected, atol=1e-5)


@pytest.mark.usefixtures("no_cycles")
def test_one_component_is_open_at_a_time(tiny_model: Path) -> None:
    thrifty, seen = pipeline(tiny_model, low_vram=True), []

    def look(_: Any, index: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append([graph.name for graph in thrifty.graphs])
        return tensors

    assert thrifty.load().graphs == ()
    kept = list(thrifty.stream(Request(prompt="a", width=64, height=64, num_inference_steps=2, seed=0)))
    assert [graph.name for graph in thrifty.graphs] == ["vae_decoder"]
    del kept
    thrifty("a", callback_on_step_end=look, **CALL)
    assert seen
    assert {tuple(names) for names in seen} == {("unet",)}
    assert [graph.name for graph in thrifty.graphs] == ["vae_decoder"]
    assert "stages" in str(thrifty.graphs[0].path)


def test_the_largest_component_is_loaded_first(tiny_model: Path) -> None:
    """A graph takes more memory while it loads than afterwards, so the peak is lowest if the largest comes first."""
    with pipeline(tiny_model).load() as made:
        assert [graph.name for graph in made.graphs] == ["unet", "text_encoder", "vae_decoder"]


@pytest.mark.usefixtures("no_cycles")
@pytest.mark.parametrize("low_vram", [True, False])
def test_closing_frees_every_session(tiny_model: Path, low_vram: bool) -> None:
    made = pipeline(tiny_model, low_vram=low_vram)
    made("a", **CALL)
    opened = [weakref.ref(graph) for graph in made.graphs]
    assert opened
    made.close()
    assert [reference() for reference in opened] == [None] * len(opened)


@pytest.mark.usefixtures("no_cycles")
def test_concurrent_runs_share_the_sessions(tiny_model: Path) -> None:
    thrifty = pipeline(tiny_model, low_vram=True)
    expected = thrifty("a", **CALL).images
    request = Request(prompt="a", num_inference_steps=3, width=64, height=72, seed=1, output_type="np")
    streams = [thrifty.stream(request) for _ in range(3)]
    for _ in range(thrifty.num_evaluations(request)):
        for stream in streams:
            next(stream)
        assert [graph.name for graph in thrifty.graphs].count("unet") == 1
    for stream in streams:
        np.testing.assert_array_equal(next(stream).images, expected)  # type: ignore[union-attr]


def test_a_reloaded_text_encoder_knows_textual_inversions(tiny_model: Path, tmp_path: Path) -> None:
    from tests.safetensors_files import save_file

    width = 32
    vector = np.random.default_rng(0).standard_normal((1, width)).astype(np.float32)
    save_file({"emb_params": vector}, tmp_path / "moss.safetensors")
    made, thrifty = pipeline(tiny_model), pipeline(tiny_model, low_vram=True)
    for one in (made, thrifty):
        one.load_textual_inversion(tmp_path / "moss.safetensors")
    expected = made("moss", **CALL).images
    for _ in range(2):
        np.testing.assert_allclose(thrifty("moss", **CALL).images, expected, atol=1e-5)


def test_image_to_image_gives_the_same_image(tiny_model: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (72, 64, 3), np.uint8)
    call = {"prompt": "a", **CALL, "image": image, "strength": 0.7}
    expected = pipeline(tiny_model)(**call).images
    np.testing.assert_allclose(pipeline(tiny_model, low_vram=True)(**call).images, expected, atol=1e-5)


def test_tiles_can_be_refused(tiny_model: Path) -> None:
    whole = pipeline(tiny_model, low_vram=True, vae_tiling=False)
    whole("a", **CALL)
    assert whole.graphs[0].path.name == "model.onnx"


def test_other_values_are_refused() -> None:
    with pytest.raises(RequestError, match="low_vram is 'yes': expected True, False or None"):
        SessionConfig(low_vram="yes")  # type: ignore[arg-type]
