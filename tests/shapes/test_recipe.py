"""The recipe end to end, for a few steps: it trains nothing worth having, and every stage runs and resumes."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
pytest.importorskip("torch", reason="comes with the train extra")


def run(command: Any, *arguments: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def stage(folder: Path, steps: int, stop: int | None = None, rate: float = 1e-2) -> Any:
    """Fits a line; ``stop`` is the step that Ctrl-C meets."""
    import torch

    from sdrt_models.shapes.training import Stage

    def loss(model: Any, step: int, rng: np.random.Generator) -> Any:
        if step == stop:
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.standard_normal((8, 3), dtype=np.float32))
        return (model(x) - x.sum(1, keepdim=True) + 0.01 * torch.randn(8, 1)).square().mean()

    torch.manual_seed(0)
    return Stage(
        model=torch.nn.Linear(3, 1),
        loss=loss,
        sample=None,
        data="a line",
        folder=folder,
        steps=steps,
        learning_rate=rate,
        device="cpu",
        warmup=3,
        every=4,
    )


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    import torch

    from sdrt_models.shapes.training import train

    whole = train(stage(tmp_path / "whole", 12))
    with pytest.raises(KeyboardInterrupt):
        train(stage(tmp_path / "parts", 12, stop=9))
    train(stage(tmp_path / "parts", 12))
    one, other = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts"))
    assert one["losses"] == other["losses"]
    for kind in ("model", "averaged"):
        for name, value in one[kind].items():
            assert torch.equal(value, other[kind][name]), (kind, name)
    assert np.mean(one["losses"][-4:]) < np.mean(one["losses"][:4])
    assert torch.equal(whole.weight, one["averaged"]["weight"])


def test_a_training_with_other_settings_is_not_resumed(tmp_path: Path) -> None:
    from sdrt_models.shapes.training import train

    train(stage(tmp_path / "work", 4))
    with pytest.raises(click.ClickException, match=r"was made with learning_rate 0\.01"):
        train(stage(tmp_path / "work", 4, rate=1e-3))
    with pytest.raises(click.ClickException, match="was made with data a line, and this is a curve"):
        train(replace(stage(tmp_path / "work", 4), data="a curve"))
    other = stage(tmp_path / "work", 4)
    other.model.bias.data += 1
    with pytest.raises(click.ClickException, match="was made with first weights"):
        train(other)


def latents_std(folder: Path) -> float:
    """Of the training images' latents, scaled as the U-Net meets them."""
    import torch
    from diffusers import AutoencoderKL

    from sdrt_models.shapes.drawing import draw_scene
    from sdrt_models.shapes.scenes import sample_scene

    vae = AutoencoderKL.from_pretrained(folder)
    rngs = [np.random.default_rng((1, index)) for index in range(32)]
    images = np.stack([np.asarray(draw_scene(sample_scene(rng), rng)) for rng in rngs])
    with torch.no_grad():
        posterior = vae.encode(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist
        return float(posterior.sample().std() * vae.config.scaling_factor)


@pytest.mark.full
def test_from_nothing_to_a_model_that_runs(tmp_path: Path) -> None:
    from sdrt import StableDiffusionPipeline
    from sdrt_export import export_model
    from sdrt_models.shapes import assemble, train_text_encoder, train_unet, train_vae

    work = tmp_path / "work"
    small = ("--images", "32", "--batch", "4")
    assert "step 2/2" in run(train_vae.main, str(work), "--steps", "2", *small)
    assert json.loads((work / "vae" / "config.json").read_text())["scaling_factor"] != 0.18215
    assert latents_std(work / "vae") == pytest.approx(1.0, rel=0.05)
    run(train_text_encoder.main, str(work), "--steps", "2", "--batch", "4")
    run(train_unet.main, str(work), "--steps", "2", *small)
    for stage in ("vae-training", "text-encoder-training", "unet-training"):
        assert (work / stage / "loss.png").stat().st_size > 1000
    for stage in ("vae-training", "unet-training"):
        assert list((work / stage / "samples").glob("*.png"))
    run(assemble.main, str(work))
    manifest = export_model(work / "shapes", tmp_path / "model", dtype="fp16", verify=True)
    assert manifest.dtype == "float16"
    pipeline = StableDiffusionPipeline.from_pretrained(
        tmp_path / "model", provider="cpu", notify=lambda _: None
    )
    assert pipeline("a red circle", num_inference_steps=2, seed=0).images[0].size == (128, 128)


@pytest.mark.parametrize("stage", ["train_unet", "assemble"])
def test_a_stage_asks_for_the_one_before_it_and_not_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    from importlib import import_module

    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    result = CliRunner().invoke(import_module(f"sdrt_models.shapes.{stage}").main, ["work"])
    assert result.exit_code == 1
    assert "is not there: python -m sdrt_models.shapes.train_" in result.output
    assert not any((tmp_path / "work").iterdir())
