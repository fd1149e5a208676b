"""What is given beside a checkpoint, from programs: wrong and empty values are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdrt import StableDiffusionPipeline
from sdrt.errors import ModelNotFoundError, RequestError

pytest.importorskip("onnx")  # the exporter's
from sdrt_export import export_model

WRONG: list[tuple[str, Any, str]] = [
    ("vae", "", r"vae is '': expected a path or hub id"),
    ("vae", 5, r"vae is 5: expected a path or hub id"),
    ("vae", "a\0b", r"vae is 'a\\x00b': expected a path or hub id"),
    ("config", "", r"config is '': expected a path or hub id"),
    ("config", ["a"], r"config is \['a'\]: expected a path or hub id"),
    ("text_encoders", "", r"text_encoders is '': expected a path or hub id"),
    ("text_encoders", [None], r"text_encoders is None: expected a path or hub id"),
    ("text_encoders", 5, r"text_encoders is 5: expected a list"),
    ("text_encoders", None, r"text_encoders is None: expected a list"),
    ("prediction_type", "", r"prediction_type is '': expected epsilon or v_prediction"),
    ("prediction_type", "v", r"prediction_type is 'v': expected epsilon or v_prediction"),
    ("prediction_type", ["epsilon"], r"prediction_type is \['epsilon'\]: expected epsilon"),
]


@pytest.mark.parametrize(("argument", "value", "message"), WRONG)
def test_values_that_do_not_fit_are_refused_by_name(
    argument: str, value: Any, message: str, tmp_path: Path
) -> None:
    """An unset variable in `--vae "$VAE"` would otherwise give an image of another VAE."""
    model = tmp_path / "model.safetensors"
    with pytest.raises(RequestError, match=message):
        StableDiffusionPipeline.from_single_file(model, **{argument: value})
    with pytest.raises(RequestError, match=message):
        export_model(model, tmp_path / "out", **{argument: value})


def test_one_text_encoder_is_one_file_and_not_its_letters(tmp_path: Path) -> None:
    from sdrt.model_folder.source import Beside

    assert Beside(text_encoders="clip_l.safetensors").text_encoders == ("clip_l.safetensors",)
    assert Beside(text_encoders=tmp_path).text_encoders == (tmp_path,)


@pytest.mark.parametrize("value", ["", 5, "a\0b"])
def test_a_path_of_nothing_is_not_the_current_folder(value: Any, tmp_path: Path) -> None:
    kind = ModelNotFoundError if value == "" else RequestError
    with pytest.raises(kind, match=r"model is .*: expected a folder"):
        StableDiffusionPipeline.from_pretrained(value)
    with pytest.raises(RequestError, match=r"output is .*: expected a folder to write"):
        export_model(tmp_path, value)


def test_a_name_that_is_too_long_is_no_traceback() -> None:
    with pytest.raises(ModelNotFoundError):
        StableDiffusionPipeline.from_single_file("x" * 5000)


@pytest.mark.parametrize("value", [["cpu"], {}, 5])
def test_a_target_of_another_type_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="unknown target"):
        export_model(tmp_path, tmp_path / "out", target=value)
