"""The VAE in tiles, on the tiny and the embedded model: the same images, in bounded memory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sdrt import (
    OutOfMemoryError,
    Request,
    RequestError,
    StableDiffusionPipeline,
    UnsupportedModelError,
)
from sdrt.common.notices import Notices
from sdrt.model_folder.resolve import open_local
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component
from sdrt.run.open_graphs import OpenGraphs
from sdrt.vae import stages as vae_stages
from sdrt.vae.stages import StagedVae

NAMES = {"vae_encoder": ("sample", "latent_parameters"), "vae_decoder": ("latent_sample", "sample")}


def whole_and_staged(model: str | Path, name: str, tile: int) -> tuple[Component, StagedVae]:
    folder, config = open_local(model), SessionConfig(provider="cpu")
    whole = Component(name, folder.component(name), config, Notices(None))
    stages = Component(name, folder.stages(name), config, Notices(None))
    return whole, StagedVae(stages, tile=tile)


def example(name: str, height: int, width: int) -> NDArray[np.float32]:
    """Latents or an image [C, H, W] that differs from place to place, so that its tiles' means differ too."""
    rng = np.random.default_rng(4)
    channels, scale = (3, 8) if name == "vae_encoder" else (4, 1)
    noise = rng.standard_normal((channels, height * scale, width * scale), dtype=np.float32)
    slope = np.linspace(-1, 1, width * scale, dtype=np.float32)
    return 0.3 * noise + slope


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", ["tiny", "shapes"])
@pytest.mark.parametrize(("height", "width"), [(16, 24), (7, 5), (1, 33)])
def test_tiles_make_what_the_whole_makes(
    name: str, model: str, height: int, width: int, tiny_model: Path
) -> None:
    path = tiny_model if model == "tiny" else model
    whole, staged = whole_and_staged(path, name, tile=2048 if model == "tiny" else 20_000)
    given = example(name, height, width)
    takes, gives = NAMES[name]
    expected = whole.run({takes: given[np.newaxis]}, gives)[0]
    found = staged(given)
    # Images lie in -1..1: this is a few thousandths of a level of 255.
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_tiles_that_used_their_own_means_would_fail(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the stages are for: with one tile's mean and variance for all, the image is another."""
    whole, staged = whole_and_staged(tiny_model, "vae_decoder", tile=2048)
    latents = example("vae_decoder", 16, 24)
    expected = whole.run({"latent_sample": latents[np.newaxis]}, "sample")[0]
    add = vae_stages._Norm.add

    def first_alone(norm: vae_stages._Norm, tile: NDArray[np.float32]) -> None:
        if not norm._count:
            add(norm, tile)

    monkeypatch.setattr(vae_stages._Norm, "add", first_alone)
    assert np.abs(staged(latents) - expected).max() > 0.05


def test_no_run_takes_more_than_a_tile(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tile and its halo, but for attention, which sees queries, keys and values of all latents."""
    _, staged = whole_and_staged(tiny_model, "vae_decoder", tile=4096)
    monkeypatch.setattr(vae_stages, "_SCORES", 32 * 40 * 64)
    run, sizes, whole = Component.run, [], []

    def spied(component: Component, feeds: dict[str, NDArray[Any]], output: str) -> NDArray[Any]:
        out = run(component, feeds, output)
        sizes.extend(array.size for name, array in feeds.items() if not name.endswith("whole"))
        whole.extend(array.size for name, array in feeds.items() if name.endswith("whole"))
        sizes.append(out.size)
        return out

    monkeypatch.setattr(Component, "run", spied)
    large = staged(example("vae_decoder", 32, 40))
    # A halo of one pixel around 8, where the image is enlarged, makes 10 of them.
    assert max(sizes) <= 4096 * (10 / 8) ** 2 < large.size
    # 64 latents at once, so that many tiles see all 1280 of them, each of 3 * 16 numbers.
    assert whole.count(3 * 16 * 32 * 40) == 32 * 40 // 64


def test_what_does_not_fit_in_memory_goes_to_a_file(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, staged = whole_and_staged(tiny_model, "vae_decoder", tile=4096)
    latents = example("vae_decoder", 8, 8)
    expected = staged(latents)
    monkeypatch.setattr(vae_stages, "_IN_MEMORY", 0)
    found = staged(latents)
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, expected)
    monkeypatch.setattr(tempfile, "tempdir", str(tiny_model / "no-such-folder"))
    with pytest.raises(OutOfMemoryError, match="set TMPDIR"):
        staged(latents)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which graphs of the VAE are opened."""
    made: list[str] = []
    once = OpenGraphs.get

    def spied(graphs: OpenGraphs, name: str, make: Any, *more: Any) -> Any:
        made.append(name)
        return once(graphs, name, make, *more)

    monkeypatch.setattr(OpenGraphs, "get", spied)
    return made


@pytest.mark.parametrize(("tiling", "staged"), [(None, False), (False, False), (True, True)])
def test_images_are_those_of_the_whole(
    tiling: bool | None, staged: bool, tiny_model: Path, opened: list[str]
) -> None:
    options: dict[str, Any] = {"num_inference_steps": 2, "seed": 5, "strength": 0.5}
    image = Image.effect_noise((72, 56), 60).convert("RGB")
    expected = StableDiffusionPipeline.from_pretrained(tiny_model)("a cat", image=image, **options)
    opened.clear()
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, vae_tiling=tiling)
    made = pipeline.load()("a cat", image=image, **options)
    assert any("in stages" in name for name in opened) is staged
    assert any(name == "vae_decoder, whole" for name in opened) is not staged
    apart = np.asarray(made.images[0], int) - np.asarray(expected.images[0], int)
    assert np.abs(apart).max() <= 1


def test_large_images_are_tiled(tiny_model: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdrt.vae.autoencoder.LARGEST_WHOLE", 64 * 64)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    pipeline("a cat", width=64, height=64, num_inference_steps=1)
    assert not any("in stages" in name for name in opened)
    pipeline("a cat", width=64, height=72, num_inference_steps=1)
    assert "vae_decoder, in stages" in opened


def test_a_model_without_stages_is_decoded_whole_and_says_what_tiling_takes(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    for name in ("sdrt.json", "vae_decoder/stages.onnx", "vae_encoder/stages.onnx"):
        (copy / name).unlink()
    monkeypatch.setattr("sdrt.vae.autoencoder.LARGEST_WHOLE", 0)
    StableDiffusionPipeline.from_pretrained(copy)("a cat", num_inference_steps=1)
    with pytest.raises(UnsupportedModelError, match=r"vae_tiling is set.* export the checkpoint again"):
        # Before anything is denoised.
        next(StableDiffusionPipeline.from_pretrained(copy, vae_tiling=True).stream(Request(prompt="a cat")))
    with pytest.raises(RequestError, match="vae_tiling is 'yes'"):
        StableDiffusionPipeline.from_pretrained(copy, vae_tiling="yes")  # type: ignore[arg-type]
