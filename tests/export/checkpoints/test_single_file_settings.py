"""What a single file predicts, and its default size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdrt.errors import RequestError, UnsupportedModelError
from sdrt_export.checkpoints.single_file import open_single_file
from tests.export.checkpoints.ldm_files import Made
from tests.export.checkpoints.single_files import opened


@pytest.mark.parametrize(
    ("kind", "scaling", "scheduler", "size"),
    [
        ("sd1", 0.18215, "PNDMScheduler", 64),
        ("sd2", 0.18215, "PNDMScheduler", 64),
        ("x4-upscaler", 0.08333, "DDIMScheduler", 128),
        ("sdxl", 0.13025, "EulerDiscreteScheduler", 128),
        ("sdxl-refiner", 0.13025, "EulerDiscreteScheduler", 128),
    ],
)
def test_what_no_tensor_tells(
    kind: str, scaling: float, scheduler: str, size: int, files: dict[str, tuple[Path, Made]]
) -> None:
    checkpoint = opened(files[kind][0])
    assert checkpoint.config("vae")["scaling_factor"] == scaling
    assert checkpoint.scheduler_config()["_class_name"] == scheduler
    assert checkpoint.config("unet")["sample_size"] == size
    assert (checkpoint.low_res_scheduler_config() is not None) == (kind == "x4-upscaler")


def with_metadata(content: Made, path: Path, metadata: dict[str, str]) -> Path:
    from safetensors.numpy import save_file as save

    save({name: np.ascontiguousarray(array) for name, array in content.tensors.items()}, path, metadata)
    return path


def prediction(path: Path, given: str | None = None) -> str:
    found = open_single_file(path, prediction_type=given).scheduler_config()["prediction_type"]
    assert isinstance(found, str)
    return found


def test_stable_diffusion_2_asks_what_it_predicts(files: dict[str, tuple[Path, Made]]) -> None:
    path, _ = files["sd2"]
    with pytest.raises(UnsupportedModelError, match="--prediction-type v_prediction"):
        open_single_file(path)
    assert prediction(path, "epsilon") == "epsilon"
    checkpoint = open_single_file(path, prediction_type="v_prediction")
    assert checkpoint.scheduler_config()["_class_name"] == "DDIMScheduler"
    assert checkpoint.config("unet")["sample_size"] == 96
    with pytest.raises(RequestError, match="epsilon or v_prediction"):
        open_single_file(path, prediction_type="v")


@pytest.mark.parametrize("given", [None, "epsilon", "v_prediction"])
def test_sd_turbo_has_its_scheduler_and_says_what_it_predicts(
    given: str | None, tmp_path: Path, files: dict[str, tuple[Path, Made]]
) -> None:
    path = tmp_path / "sd_turbo.safetensors"
    path.symlink_to(files["sd2"][0])
    found = open_single_file(path, prediction_type=given).scheduler_config()
    assert (found["_class_name"], found["timestep_spacing"]) == ("EulerDiscreteScheduler", "trailing")
    assert found["prediction_type"] == (given or "epsilon")


def test_a_distilled_model_that_is_said_to_predict_v_keeps_its_scheduler(
    tmp_path: Path, files: dict[str, tuple[Path, Made]]
) -> None:
    path = tmp_path / "sdxl_lightning_1step.safetensors"
    path.symlink_to(files["sdxl"][0])
    for given, expected in ((None, "sample"), ("epsilon", "epsilon"), ("v_prediction", "v_prediction")):
        found = open_single_file(path, prediction_type=given).scheduler_config()
        assert (found["prediction_type"], found["timestep_spacing"]) == (expected, "trailing")


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"modelspec.prediction_type": "v"}, "v_prediction"),
        ({"modelspec.prediction_type": "epsilon"}, "epsilon"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v_prediction"),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, "epsilon"),
    ],
)
def test_metadata_tell(
    metadata: dict[str, str], expected: str, tmp_path: Path, files: dict[str, tuple[Path, Made]]
) -> None:
    path = with_metadata(files["sd2"][1], tmp_path / "model.safetensors", metadata)
    assert prediction(path) == expected
    other = "epsilon" if expected == "v_prediction" else "v_prediction"
    assert prediction(path, other) == other


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('model:\n  params:\n    parameterization: "v"\n    unet_config:\n', "v_prediction"),
        ("model:\n  params:\n    parameterization: eps\n", "epsilon"),
        ("model:\n  params:\n    unet_config:\n", "epsilon"),
    ],
)
def test_a_yaml_file_beside_it_tells_as_in_a1111(
    text: str, expected: str, tmp_path: Path, files: dict[str, tuple[Path, Made]]
) -> None:
    path = files["sd2"][1].saved(tmp_path / "model.safetensors")
    (tmp_path / "model.yaml").write_text(text)
    assert prediction(path) == expected


def test_markers_tell(tmp_path: Path, files: dict[str, tuple[Path, Made]]) -> None:
    content, empty = files["sdxl"][1], np.zeros(0, np.float32)
    checkpoint = open_single_file(content.saved(tmp_path / "v.safetensors", v_pred=empty))
    assert checkpoint.scheduler_config()["prediction_type"] == "v_prediction"
    assert "rescale_betas_zero_snr" not in checkpoint.scheduler_config()
    checkpoint = open_single_file(content.saved(tmp_path / "z.safetensors", v_pred=empty, ztsnr=empty))
    assert checkpoint.scheduler_config()["rescale_betas_zero_snr"] is True
    assert checkpoint.scheduler_config()["timestep_spacing"] == "trailing"
    assert prediction(files["sdxl"][0]) == "epsilon"


def test_the_files_own_resolution_is_the_default_size(
    tmp_path: Path, files: dict[str, tuple[Path, Made]]
) -> None:
    path = with_metadata(files["sd1"][1], tmp_path / "m.safetensors", {"modelspec.resolution": "768x512"})
    assert opened(path).config("unet")["sample_size"] == [64, 96]
