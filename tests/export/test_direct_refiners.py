"""Refiners that are opened directly, with their own options beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from sdrt import StableDiffusionPipeline
from sdrt.cli import main
from sdrt.errors import (
    RequestError,
)
from sdrt_export import open_direct
from tests.export.checkpoints.ldm_files import made
from tests.safetensors_files import save_file

Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of Stable Diffusion 2, which does not say what it predicts."""
    return made("sd2", whole=True).saved(tmp_path_factory.mktemp("second") / "second.safetensors")


REFINED: dict[str, Any] = {
    "num_inference_steps": 4,
    "seed": 0,
    "output_type": "np",
    "width": 64,
    "height": 64,
}


@pytest.mark.full
def test_a_refiner_has_its_own_prediction_type(single: Path, second: Path, tmp_path: Path) -> None:
    images = {}
    with StableDiffusionPipeline.from_pretrained(single, provider="cpu", notify=print) as pipeline:
        for prediction in ("epsilon", "v_prediction"):
            own = StableDiffusionPipeline.from_single_file(
                second, provider="cpu", prediction_type=prediction, notify=print
            )
            expected = pipeline("a cat", refiner=own, refiner_switch=0.5, **REFINED).images
            made = pipeline(
                "a cat",
                refiner=str(second),
                refiner_switch=0.5,
                refiner_prediction_type=prediction,
                **REFINED,
            )
            np.testing.assert_array_equal(made.images, expected)
            images[prediction] = expected
    assert np.abs(images["epsilon"] - images["v_prediction"]).max() > 0.01
    options = ["-m", str(single), "--refiner", str(second), "-W", "64", "-H", "64", "--steps", "4", "-q"]
    call = ["--refiner-switch", "0.5", "--refiner-prediction-type", "v_prediction", "-s", "0"]
    done = CliRunner().invoke(main, ["generate", "a cat", *options, *call, "-o", str(tmp_path / "out.png")])
    assert done.exit_code == 0, done.output
    from PIL import Image

    written = np.asarray(Image.open(tmp_path / "out.png"), np.float64) / 255
    assert np.abs(written - images["v_prediction"][0]).max() < 1 / 255


def test_whose_vae_it_is_is_said(single: Path, second: Path) -> None:
    said: list[str] = []
    with StableDiffusionPipeline.from_pretrained(
        single, provider="cpu", vae=single, notify=said.append
    ) as pipeline:
        pipeline("a cat", **REFINED)
        assert not any("VAE" in one for one in said)
        refined: dict[str, Any] = {"refiner": str(second), "refiner_prediction_type": "epsilon", **REFINED}
        pipeline("a cat", **refined)
    told = (
        f"VAE {single.name} is for {single.stem}: refiner {second.stem} has its own, which decodes the images"
    )
    assert told in said


def test_a_refiner_has_its_own_configs(single: Path, tmp_path: Path) -> None:
    """No tensor tells the number of heads."""
    config = open_direct(single, path=single, target="cpu", name="m").component_config("unet")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config | {"attention_head_dim": 4}))
    with StableDiffusionPipeline.from_pretrained(single, provider="cpu", notify=print) as pipeline:
        plain = pipeline("a cat", **REFINED).images
        refined = pipeline(
            "a cat", refiner=single, refiner_config=tmp_path, refiner_switch=0.5, **REFINED
        ).images
        alone = pipeline("a cat", refiner=single, refiner_switch=0.5, **REFINED).images
    assert np.abs(refined - plain).max() > 1e-3
    np.testing.assert_array_equal(alone, plain)


def test_the_first_models_own_file_needs_nothing_again(second: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked.safetensors"
    linked.symlink_to(second)
    options = {"prediction_type": "v_prediction", "provider": "cpu", "notify": print}
    with StableDiffusionPipeline.from_pretrained(second, **options) as pipeline:
        expected = pipeline("a cat", **REFINED).images
        made = pipeline("a cat", refiner=linked, refiner_switch=0.5, **REFINED).images
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            [],
            "--refiner: {second} is a checkpoint of Stable Diffusion 2, and does not say whether it predicts",
        ),
        ([], ": give --refiner-prediction-type v_prediction for"),
        (["--refiner-config", "owner/nope"], "--refiner-config: hub model 'owner/nope' is not in the cache"),
        (["--refiner-config", ""], "--refiner-config is '': expected a path or hub id"),
        (["--refiner", "owner/nope"], "--refiner: hub model 'owner/nope' is not in the cache"),
        (["--refiner", "no.safetensors"], "--refiner: there is no file no.safetensors"),
        (
            ["--refiner", "shapes", "--refiner-prediction-type", "epsilon"],
            "--refiner-prediction-type is given, but shapes has been exported already: leave it out, or export the "
            "checkpoint with its own --prediction-type",
        ),
        (
            ["--refiner", "{bare}"],
            "but has no vae: give one with --vae FILE to sdrt export, and pass the exported folder as the refiner",
        ),
    ],
    ids=str,
)
def test_a_refiner_that_cannot_be_opened_names_its_own_options(
    options: list[str], words: str, single: Path, second: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.safetensors"
    save_file(made("sd1", whole=True).without("first_stage_model."), bare)
    paths = {"second": second, "bare": bare}
    own = [one.format(**paths) for one in options]
    chosen = ["--refiner", str(second)] if "--refiner" not in own else []
    common = ["-m", str(single), "-q", "-o", str(tmp_path / "out.png")]
    done = CliRunner().invoke(main, ["generate", "a cat", *common, *chosen, *own])
    assert done.exit_code in (2, 3)
    assert f"{words.format(**paths)}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_is_beside_an_open_refiner_is_refused(single: Path) -> None:
    with StableDiffusionPipeline.from_pretrained(single, provider="cpu", notify=print) as pipeline:
        for name in ("refiner_config", "refiner_prediction_type"):
            with pytest.raises(RequestError, match=f"{name} is given, but the refiner is a pipeline"):
                pipeline("a cat", refiner=pipeline, **{name: "epsilon"})
