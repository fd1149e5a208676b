"""What cannot be done with two models, and what stops a run; on the tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import (
    OutOfMemoryError,
    RequestError,
    RunCancelledError,
    StableDiffusionPipeline,
)
from sdrt.model_folder.graph_kind import MoreInputs
from sdrt.run.components import LoadedComponents
from tests.runtime.run.refining import FAST, opened


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"denoising_end": 0}, "denoising_end is 0, so no step would run"),
        ({"denoising_end": 1.2}, "denoising_end is 1.2: expected a number from 0 to 1"),
        ({"denoising_end": 0.05, "num_inference_steps": 2}, "denoising_end is 0.05, so none of the steps"),
        ({"denoising_end": 0.5, "scheduler": "restart"}, "scheduler 'restart' has noise levels of its own"),
        ({"denoising_end": 0.5, "hires_scale": 2}, "at most one of denoising_end and hires_scale"),
        ({"denoising_start": 0.5}, "denoising_start has no effect without image"),
        ({"refiner_switch": 0.5}, "refiner_switch has no effect without refiner"),
        ({"refiner": 3}, "refiner is 3: expected a model's folder"),
        ({"refiner": ""}, "refiner is ''"),
        (
            {"refiner": "shapes"},
            "refiner shapes has latents of another kind than tiny-random-0: the scaling factor",
        ),
        ({"refiner": ".", "hires_refiner": "both"}, "hires_refiner has no effect without hires_scale"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(
    pipeline: StableDiffusionPipeline, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        pipeline("a cat", **FAST | settings)
    assert "\n" not in str(caught.value)
    assert caught.value.fits


def test_a_pipeline_of_another_library_is_no_refiner(pipeline: StableDiffusionPipeline) -> None:
    class Foreign:
        model = "x"

        def plan(self, request: Any) -> None: ...

    with pytest.raises(
        RequestError, match=r"refiner is .*: expected a model's name, or a StableDiffusionPipeline"
    ):
        pipeline("a cat", refiner=Foreign(), **FAST)


def test_cancelling_stops_the_refiner_too(
    pipeline: StableDiffusionPipeline, other: StableDiffusionPipeline
) -> None:
    seen: list[int] = []

    def count(_: Any, index: int, *__: Any) -> None:
        seen.append(index)

    with pytest.raises(RunCancelledError) as caught:
        pipeline(
            "a cat",
            refiner=other,
            refiner_switch=0.5,
            callback_on_step_end=count,
            cancel=lambda: len(seen) == 5,
            **FAST,
        )
    assert (caught.value.steps, caught.value.num_steps) == (5, 7)


def test_out_of_memory_at_the_switch_frees_the_first_model(
    tiny_model: Path, other_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    first, second = opened(tiny_model, notify=told.append), opened(other_folder, notify=told.append)
    call = {"refiner": second, "refiner_switch": 0.5, **FAST}
    expected = first("a cat", **call).images
    second.close()
    load, failed = LoadedComponents._make_denoiser, list[str]()

    def fail_beside_the_first(self: LoadedComponents, more: MoreInputs) -> Any:
        if self._model is second.model and "unet" in [graph.name for graph in first.graphs]:
            failed.append(self._model.name)
            raise OutOfMemoryError("unet: out of memory", component="unet", provider="cpu")
        return load(self, more)

    monkeypatch.setattr(LoadedComponents, "_make_denoiser", fail_beside_the_first)
    made = first("a cat", **call).images
    assert failed == ["other"]
    assert "Trying again with low_vram" in told[-1]
    np.testing.assert_allclose(made, expected, atol=1e-5)


def test_a_word_that_the_refiner_does_not_know_is_told(tiny_model: Path, other_folder: Path) -> None:
    told: list[str] = []
    first = opened(tiny_model, notify=told.append)
    from sdrt.text.textual_inversion import Inversion

    width = json.loads((tiny_model / "text_encoder" / "config.json").read_text())["hidden_size"]
    first._cache.add_words([Inversion(token="blob", vectors=np.zeros((1, width), np.float32), file="blob")])
    first("a blob", refiner=str(other_folder), **FAST)
    assert [one for one in told if "blob" in one] == [
        "refiner other reads 'blob' as text: load the textual inversion into a pipeline of that model too, and give "
        "the pipeline as refiner"
    ]
    told.clear()
    first("a cat", refiner=str(other_folder), **FAST)
    assert told == []


def test_only_the_last_named_refiner_stays_in_memory(
    tiny_model: Path, other_folder: Path, tmp_path: Path
) -> None:
    third = tmp_path / "third"
    shutil.copytree(other_folder, third)
    first = opened(tiny_model)
    call = {"refiner_switch": 0.5, **FAST}
    first("a cat", refiner=str(other_folder), **call)
    first("a cat", refiner=str(third), **call)
    caches = {name: one.cache for (name, *_), one in first._refiners._named.items()}
    assert caches[str(other_folder)].current is None
    assert caches[str(third)].current is not None
    first.close()
    assert caches[str(third)].current is None
