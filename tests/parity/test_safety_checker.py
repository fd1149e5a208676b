"""The safety checker beside diffusers': its verdicts, the black images, and what is said about them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from PIL import Image

from sdrt import StableDiffusionPipeline
from sdrt.run.safety_checker import is_flagged
from sdrt_export.export import export_model
from tests.parity.checkpoints import randomise

PROMPTS = ["a lake", "a castle in a dark forest", "a small red house", "the cat sat"]
CALL: dict[str, Any] = {"num_inference_steps": 2, "height": 64, "width": 64}
VISION = {"hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2}
VISION |= {"image_size": 30, "patch_size": 10, "projection_dim": 8}


def add_checker(folder: Path, thresholds: torch.Tensor) -> None:
    """Give a checkpoint a safety checker with random weights and these `thresholds` [17]."""
    config = transformers.CLIPConfig(vision_config=VISION, projection_dim=8)
    checker = randomise(StableDiffusionSafetyChecker(config), 12)
    with torch.no_grad():
        checker.special_care_embeds_weights.fill_(2.0)
        checker.concept_embeds_weights.copy_(thresholds)
    checker.save_pretrained(folder / "safety_checker")
    size = {"shortest_edge": 30}
    transformers.CLIPImageProcessor(size=size, crop_size=30).save_pretrained(folder / "feature_extractor")
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    index["requires_safety_checker"] = True
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


def theirs(folder: Path) -> tuple[list[Any], list[bool], Any]:
    """diffusers' images of `PROMPTS`, its verdicts, and its checker."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(3 + number) for number in range(len(PROMPTS))]
    made = pipeline(PROMPTS, generator=generators, **CALL)
    return made.images, made.nsfw_content_detected, pipeline


@pytest.fixture(scope="module")
def checked(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose checker flags some images of `PROMPTS`: its thresholds lie between their cosines."""
    folder = shutil.copytree(checkpoint("sd1"), tmp_path_factory.mktemp("checked") / "checked")
    add_checker(folder, torch.full((17,), 2.0))
    images, flagged, pipeline = theirs(folder)
    assert not any(flagged)
    given = pipeline.feature_extractor(images, return_tensors="pt").pixel_values
    with torch.no_grad():
        embeds = pipeline.safety_checker.visual_projection(pipeline.safety_checker.vision_model(given)[1])
    concepts = pipeline.safety_checker.concept_embeds
    cosines = torch.nn.functional.normalize(embeds) @ torch.nn.functional.normalize(concepts).T
    limits = torch.full((17,), 2.0)
    limits[5] = cosines[:, 5].median() + 1e-3
    shutil.rmtree(folder / "safety_checker")
    add_checker(folder, limits)
    return folder


def opened(folder: Path, notify: Callable[[str], None] = lambda message: None, **more: Any) -> Any:
    return StableDiffusionPipeline.from_pretrained(folder, provider="cpu", threads=2, notify=notify, **more)


@pytest.fixture(scope="module")
def exported(checked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "exported"
    manifest = export_model(checked, folder, verify=True)
    parity = manifest.components["safety_checker"]["parity"]
    # Measured: 1.1e-6, float32 sums in another order.
    assert max(row["relative_error"] for row in parity) < 5e-6
    return folder


@pytest.mark.parametrize("kind", ["direct", "exported"])
def test_verdicts_and_images_are_those_of_diffusers(kind: str, checked: Path, exported: Path) -> None:
    expected, verdicts, _ = theirs(checked)
    assert set(verdicts) == {True, False}
    messages: list[str] = []
    pipeline = opened(checked if kind == "direct" else exported, messages.append)
    made = pipeline(PROMPTS, seed=3, **CALL)
    assert made.nsfw_content_detected == verdicts
    assert made[1] == verdicts
    for ours, other, flagged in zip(made.images, expected, verdicts, strict=True):
        apart = np.abs(np.asarray(ours).astype(int) - np.asarray(other))
        assert apart.max() <= 1
        assert (np.asarray(ours).max() == 0) == flagged
    flags = ", ".join(str(number) for number, one in enumerate(verdicts, start=1) if one)
    assert [one for one in messages if "safety checker" in one] == [
        f"image {flags} of 4 may show what the safety checker of {pipeline.model.name} filters out, and is black: "
        "try another prompt or seed"
    ]
    for index, flagged in enumerate(verdicts):
        settings = made.metadata(index).settings
        assert settings["NSFW content detected"] == str(flagged)
        assert "Safety checker" not in settings


def test_arrays_are_black_and_latents_are_not_checked(checked: Path) -> None:
    _, verdicts, _ = theirs(checked)
    pipeline = opened(checked)
    made = pipeline(PROMPTS, seed=3, output_type="np", **CALL)
    assert [not image.any() for image in made.images] == verdicts
    assert pipeline(PROMPTS, seed=3, output_type="latent", **CALL).nsfw_content_detected is None


def test_it_is_turned_off_aloud(checked: Path) -> None:
    messages: list[str] = []
    pipeline = opened(checked, messages.append)
    assert pipeline.safety_checker is True
    made = pipeline(PROMPTS, seed=3, safety_checker=False, **CALL)
    assert made.nsfw_content_detected is None
    assert all(np.asarray(image).max() > 0 for image in made.images)
    said = "the safety checker of checked is off: images are not filtered"
    assert messages == [said]
    assert made.metadata(0).settings["Safety checker"] == "False"
    assert "NSFW content detected" not in made.metadata(0).settings
    # As in diffusers, for the whole pipeline.
    pipeline.safety_checker = None
    assert pipeline("a lake", seed=3, **CALL).nsfw_content_detected is None
    assert messages == [said, said]
    other = opened(checked, messages.append, safety_checker=None)
    made = other("a lake", seed=3, **CALL)
    assert (made.nsfw_content_detected, made.request.safety_checker) == (None, False)
    assert messages == [said, said, said]


@pytest.mark.full
def test_a_refiner_without_a_checker_leaves_the_first_model_its_own(
    checked: Path, checkpoint: Callable[[str], Path]
) -> None:
    plain, said = checkpoint("sd1"), list[str]()
    call: dict[str, Any] = {"prompt": PROMPTS, "seed": 3, **CALL}
    refined = call | {"refiner": str(plain), "refiner_switch": 0.5}
    with opened(checked) as alone:
        expected = alone(**call).nsfw_content_detected
    assert any(expected)
    for low_vram in (False, True):
        with opened(checked, said.append, low_vram=low_vram) as pipeline:
            assert pipeline(**refined).nsfw_content_detected == expected
            assert pipeline(safety_checker=False, **refined).nsfw_content_detected is None
    assert any(f"the safety checker of {checked.name} filters out" in one for one in said)
    # A refiner's own checker is the one that looks.
    with opened(plain) as other:
        made = other(refiner=str(checked), refiner_switch=0.5, **call)
    assert made.nsfw_content_detected == expected


def test_passes_before_the_last_are_not_checked(checked: Path) -> None:
    """A black image in between would show in the result."""
    pipeline = opened(checked)
    off = pipeline("a lake", seed=3, hires_scale=1.5, hires_upscaler="lanczos", safety_checker=False, **CALL)
    made = pipeline("a lake", seed=3, hires_scale=1.5, hires_upscaler="lanczos", **CALL)
    assert len(made.nsfw_content_detected) == 1
    if not made.nsfw_content_detected[0]:
        np.testing.assert_array_equal(np.asarray(made.images[0]), np.asarray(off.images[0]))


@pytest.mark.parametrize("seed", range(4))
def test_the_rule_is_that_of_diffusers(seed: int) -> None:
    """Around the thresholds, where the third decimal and the adjustment of 0.01 decide."""
    generator = torch.Generator().manual_seed(seed)
    config = transformers.CLIPConfig(vision_config=VISION, projection_dim=8)
    checker = randomise(StableDiffusionSafetyChecker(config), seed)
    images = torch.randn((40, 3, 30, 30), generator=generator)
    with torch.no_grad():
        embeds = checker.visual_projection(checker.vision_model(images)[1])
        unit = torch.nn.functional.normalize
        special = (unit(embeds) @ unit(checker.special_care_embeds).T).numpy()
        cosines = (unit(embeds) @ unit(checker.concept_embeds).T).numpy()
        # Two concepts at one image's cosine each, which rounds to a verdict, and is overruled by the adjustment.
        limits = np.full(17, 2.0)
        for concept, offset in ((5, -0.0004), (9, -0.0006)):
            limits[concept] = np.sort(cosines[:, concept])[30] + offset
        checker.concept_embeds_weights.copy_(torch.from_numpy(limits.astype(np.float32)))
        cares = np.sort(special, axis=0)[[38, 39, 37], np.arange(3)] - np.float32(0.0006)
        checker.special_care_embeds_weights.copy_(torch.from_numpy(cares))
    _, expected = checker(images, [np.ones((4, 4, 3))] * 40)
    found = [
        is_flagged(
            special[row],
            cosines[row],
            checker.special_care_embeds_weights.numpy(),
            checker.concept_embeds_weights.numpy(),
        )
        for row in range(40)
    ]
    assert found == expected
    assert set(expected) == {True, False}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "safety_checker"), "is incomplete: "),
        (lambda folder: shutil.rmtree(folder / "feature_extractor"), "is incomplete: "),
        (
            lambda folder: (folder / "safety_checker/model.safetensors").rename(
                folder / "safety_checker/pytorch_model.bin"
            ),
            "a pickle runs code when it is read",
        ),
    ],
)
def test_a_checker_that_cannot_run_is_said_and_not_pretended(
    damage: Callable[[Path], Any], message: str, checked: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(checked, tmp_path / "broken")
    damage(folder)
    messages: list[str] = []
    pipeline = opened(folder, messages.append)
    made = pipeline("a lake", seed=3, **CALL)
    assert made.nsfw_content_detected is None
    assert pipeline.safety_checker is None
    assert len(messages) == 1
    assert messages[0].startswith("the safety checker of broken ")
    assert message in messages[0]
    assert messages[0].endswith("Images are not filtered")
    events: list[Any] = []
    export_model(folder, tmp_path / "model", reporter=events.append)
    left = [event.detail for event in events if event.component == "safety_checker"]
    assert len(left) == 1
    assert left[0].startswith("left out: it ")


def test_a_model_without_one_pretends_nothing(checkpoint: Callable[[str], Path]) -> None:
    messages: list[str] = []
    pipeline = opened(checkpoint("sd1"), messages.append)
    made = pipeline("a lake", seed=3, **CALL)
    assert (made.nsfw_content_detected, pipeline.safety_checker, messages) == (None, None, [])
    made = pipeline("a lake", seed=3, safety_checker=False, **CALL)
    assert messages == [f"{pipeline.model.name} has no safety checker to turn off"]
    assert "Safety checker" not in made.metadata(0).settings


def read(path: Path) -> tuple[Any, str]:
    """The pixels of a file, and its metadata."""
    with Image.open(path) as image:
        return np.asarray(image), image.info["parameters"]


@pytest.mark.full
def test_the_command_says_it(exported: Path, tmp_path: Path) -> None:
    """In its JSON and in the files, which `--from` reads."""
    command = [sys.executable, "-m", "sdrt", "generate", *PROMPTS, "-m", str(exported), "--seed", "3"]
    command += ["--steps", "2", "--width", "64", "--height", "64", "--json"]
    for folder in ("on", "off"):
        (tmp_path / folder).mkdir()
    made = subprocess.run([*command, "-o", f"{tmp_path}/on/"], check=True, capture_output=True, text=True)
    report = json.loads(made.stdout)
    assert set(report["nsfw_content_detected"]) == {True, False}
    assert report["settings"]["no_safety_checker"] is False
    for path, flagged in zip(report["files"], report["nsfw_content_detected"], strict=True):
        pixels, parameters = read(path)
        assert (pixels.max() == 0) == flagged
        assert f"NSFW content detected: {flagged}" in parameters
    off = [*command, "--no-safety-checker", "-o", f"{tmp_path}/off/"]
    made = subprocess.run(off, check=True, capture_output=True, text=True)
    assert "the safety checker of checked is off: images are not filtered" in made.stderr
    report = json.loads(made.stdout)
    assert report["nsfw_content_detected"] == [None] * 4
    assert report["settings"]["no_safety_checker"] is True
    pixels, parameters = read(report["files"][0])
    assert "Safety checker: False" in parameters
    again = [sys.executable, "-m", "sdrt", "generate", "--from", report["files"][0], "-m", str(exported)]
    made = subprocess.run([*again, "-o", tmp_path / "again.png"], check=True, capture_output=True, text=True)
    assert "images are not filtered" in made.stderr
    np.testing.assert_array_equal(read(tmp_path / "again.png")[0], pixels)


@pytest.mark.parametrize("half", [False, True])
def test_graphs_of_diffusers_onnx_pipelines_give_verdicts(
    half: bool, checked: Path, exported: Path, tmp_path: Path
) -> None:
    """They take the image too, as `forward_onnx` does, and give the verdict without rounding the scores."""
    folder = shutil.copytree(exported, tmp_path / "legacy")
    (folder / "sdrt.json").unlink()
    checker = StableDiffusionSafetyChecker.from_pretrained(checked / "safety_checker")
    checker.forward = checker.forward_onnx
    dtype = torch.float16 if half else torch.float32
    graph = folder / "safety_checker" / "model.onnx"
    shutil.rmtree(graph.parent)
    graph.parent.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            checker.to(dtype),
            (torch.zeros((1, 3, 30, 30), dtype=dtype), torch.zeros((1, 64, 64, 3), dtype=dtype)),
            str(graph),
            input_names=["clip_input", "images"],
            output_names=["out_images", "has_nsfw_concepts"],
            dynamic_axes={
                "clip_input": {0: "batch"},
                "images": {0: "batch", 1: "height", 2: "width", 3: "channels"},
            },
            opset_version=17,
            dynamo=False,
        )
    _, verdicts, _ = theirs(checked)
    assert opened(folder)(PROMPTS, seed=3, **CALL).nsfw_content_detected == verdicts
