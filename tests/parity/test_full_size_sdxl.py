"""SDXL's full-size architecture with random weights: one float16 file, 512×512, two steps with guidance.

diffusers' results are recorded (`tools/goldens/record_full_size_xl.py`). This takes 2 minutes on two cores, 13 GB of
memory and 7 GB of disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks.checkpoints import write_single_file
from sdrt import Request, StableDiffusionPipeline
from sdrt.run.conditioning import Conditioning
from sdrt.run.result import GenerationStep
from tests.comparison import relative_error
from tools.goldens.full_size_xl_cases import RUN, SEED, SOURCE, TEXTS, kept

pytestmark = [pytest.mark.full, pytest.mark.alone]

Arrays = Mapping[str, np.ndarray]

GOLDENS = Path(__file__).parents[1] / "goldens" / "full_size_xl.npz"
# float32 sums in another order, after two steps with guidance. Measured: 1.2e-6 for the embeddings and 4.6e-6 for the
# latents (largest difference over largest magnitude), and 1.4e-5 for the image (0 to 1). Other CPUs may differ more.
RELATIVE = 5e-5
IMAGE = 1.5e-4


@pytest.fixture(scope="module")
def expected() -> Arrays:
    with np.load(GOLDENS) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("sdxl") / "sdxl.safetensors"
    write_single_file(SOURCE, path)
    yield path
    path.unlink()  # 7 GB


@pytest.fixture(scope="module")
def found(checkpoint: Path) -> Arrays:
    """What sdrt makes. The text encoders are freed before the U-Net is loaded."""
    with StableDiffusionPipeline.from_single_file(
        checkpoint, provider="cpu", notify=lambda message: None
    ) as pipeline:
        ids, told = encoded(pipeline)
        pipeline.close()
        request = Request(seed=SEED, output_type="np", **halves(told), **RUN)
        *_, last, result = pipeline.stream(request)
        assert isinstance(last, GenerationStep)
        arrays = {**told, "latents": last.latents, "image": result.images[0], "ids": ids}
        return {name: kept(name, array) for name, array in arrays.items()}


def encoded(pipeline: StableDiffusionPipeline) -> tuple[np.ndarray, Arrays]:
    """sdrt's token ids [2, 77] of the prompt, and what its U-Net gets in the first step."""
    request = pipeline.plan(Request(seed=SEED, **TEXTS, **RUN)).request
    components = pipeline._cache.get()
    encoders = [components.text_encoder(number) for number in range(2)]
    ids = np.asarray([one.tokenizer(TEXTS["prompt"]).ids for one in encoders])
    conditioning = Conditioning.of(request, pipeline.model.family, components.text_encoder, components.words)
    return ids, dict(conditioning.at(0))


def halves(told: Arrays) -> Arrays:
    """The arguments with which a call passes these embeddings to the U-Net. The unconditional half comes first."""
    names = {"prompt_embeds": "encoder_hidden_states", "pooled_prompt_embeds": "text_embeds"}
    given = {name: told[what][1:] for name, what in names.items()}
    return given | {f"negative_{name}": told[what][:1] for name, what in names.items()}


def test_token_ids(found: Arrays, expected: Arrays) -> None:
    np.testing.assert_array_equal(found["ids"], expected["ids"])


def test_what_the_u_net_gets(found: Arrays, expected: Arrays) -> None:
    assert set(found) == set(expected)
    np.testing.assert_array_equal(found["time_ids"], expected["time_ids"])
    for name in ("encoder_hidden_states", "text_embeds"):
        assert relative_error(found[name], expected[name]) < RELATIVE, name


def test_latents(found: Arrays, expected: Arrays) -> None:
    assert relative_error(found["latents"], expected["latents"]) < RELATIVE


def test_image(found: Arrays, expected: Arrays) -> None:
    # A flat or saturated image would prove nothing. Measured: a deviation of 0.23, and 96 % of the values.
    assert np.std(expected["image"]) > 0.1
    assert np.mean((expected["image"] > 0) & (expected["image"] < 1)) > 0.5
    assert np.abs(found["image"] - expected["image"]).max() <= IMAGE
