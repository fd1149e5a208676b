"""The recipe end to end, for a few steps: it trains nothing worth having, and every stage runs and resumes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
pytest.importorskip("torch", reason="comes with the train extra")


def run(command: Any, *arguments: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_from_nothing_to_a_model_that_runs(tmp_path: Path) -> None:
    from sdrt import StableDiffusionPipeline
    from sdrt_export import export_model
    from sdrt_models.shapes import assemble, train_text_encoder, train_unet, train_vae

    work = tmp_path / "work"
    small = ("--pictures", "32", "--batch", "4")
    assert "step 2/2" in run(train_vae.main, str(work), "--steps", "2", *small)
    resumed = run(train_vae.main, str(work), "--steps", "4", *small)
    assert "resumes at step 2" in resumed
    assert "step 4/4" in resumed
    assert json.loads((work / "vae" / "config.json").read_text())["scaling_factor"] != 0.18215
    run(train_text_encoder.main, str(work), "--steps", "2", "--batch", "4")
    run(train_unet.main, str(work), "--steps", "2", *small)
    for stage in ("vae-training", "text-encoder-training", "unet-training"):
        assert (work / stage / "loss.png").stat().st_size > 1000
    for stage in ("vae-training", "unet-training"):
        assert list((work / stage / "samples").glob("*.png"))
    run(assemble.main, str(work))
    manifest = export_model(work / "shapes", tmp_path / "model", dtype="fp16")
    assert manifest.dtype == "float16"
    pipeline = StableDiffusionPipeline.from_pretrained(
        tmp_path / "model", provider="cpu", notify=lambda _: None
    )
    assert pipeline("a red circle", num_inference_steps=2, seed=0).images[0].size == (128, 128)
