"""The parity ladder without torch: token ids, embeddings, components and images, as recorded from diffusers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import StableDiffusionPipeline
from sdrt.common.notices import Notices
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component
from tests.comparison import relative_error
from tools.goldens import pipeline_cases, xl_cases

TESTS = Path(__file__).resolve().parents[1]
SEED = 5
# float32 sums in another order; the exporter measured 2e-6 at worst on these weights.
TOLERANCE = 1e-5
CASES: Mapping[str, Any] = {"pipeline": pipeline_cases, "xl": xl_cases}
"""What is recorded, by the name of the file."""
MODELS = {"pipeline": "tiny", "xl": "tiny-xl"}


@dataclass(frozen=True)
class Recorded:
    """A model, and what was recorded with its weights."""

    pipeline: StableDiffusionPipeline
    arrays: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def recorded(request: pytest.FixtureRequest) -> Iterator[Recorded]:
    with np.load(TESTS / "goldens" / f"{request.param}.npz") as file:
        arrays = dict(file)
    with StableDiffusionPipeline.from_pretrained(
        TESTS / "models" / MODELS[request.param], provider="cpu", threads=1, notify=lambda _: None
    ) as pipeline:
        yield Recorded(pipeline, arrays)


@pytest.mark.parametrize(
    ("recorded", "prompt", "number", "index"),
    [
        pytest.param(name, prompt, number, index, id=f"{name}-{number}-{index}")
        for name, numbers in (("pipeline", [0]), ("xl", [0, 1]))
        for number in numbers
        for index, prompt in enumerate(CASES[name].PROMPTS)
    ],
    indirect=["recorded"],
)
def test_token_ids_and_embeddings(recorded: Recorded, prompt: str, number: int, index: int) -> None:
    encoder = recorded.pipeline._cache.get().text_encoder(number)
    ids = encoder.tokenizer(prompt).ids
    assert ids.tolist() == recorded.arrays[f"ids/{number}/{index}"].tolist()
    made = encoder.encode(prompt)
    assert relative_error(made.embeds, recorded.arrays[f"embeds/{number}/{index}"]) < TOLERANCE
    if number == 0:
        assert made.pooled is None
    else:
        assert made.pooled is not None
        assert relative_error(made.pooled, recorded.arrays[f"pooled/{index}"]) < TOLERANCE


@pytest.mark.parametrize("recorded", ["pipeline"], indirect=True)
@pytest.mark.parametrize("name", ["unet", "vae_decoder", "vae_encoder"])
def test_components(recorded: Recorded, name: str) -> None:
    inputs = pipeline_cases.component_inputs()[name]
    config = SessionConfig(provider="cpu", threads=1)
    component = Component(name, recorded.pipeline.model.component(name), config, Notices())
    outputs = tuple(component.outputs)
    with component.bound({key: value.shape for key, value in inputs.items()}, outputs) as run:
        for key, value in inputs.items():
            run.set(key, value)
        assert relative_error(run()[outputs[0]], recorded.arrays[name]) < TOLERANCE


@pytest.mark.parametrize(
    ("recorded", "name", "call"),
    [
        pytest.param(file, name, call, id=f"{file}-{name}")
        for file, cases in CASES.items()
        for name, call in cases.CALLS.items()
    ],
    indirect=["recorded"],
)
def test_images(recorded: Recorded, name: str, call: Mapping[str, Any]) -> None:
    """At most one level of 255 apart, on images that are not flat."""
    options = dict(call)
    if "image" in options:
        options["image"] = xl_cases.given_array()
    made = recorded.pipeline(seed=SEED, **options).images
    got = np.stack([np.asarray(image) for image in made]).astype(np.int16)
    expected = recorded.arrays[f"image/{name}"].astype(np.int16)
    assert got.shape == expected.shape
    assert np.ptp(expected) > 100
    assert np.abs(got - expected).max() <= 1
