"""Model folders: which are refused and with which message, and names that stand for folders."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import (
    IntegrityError,
    ModelError,
    ModelNotFoundError,
    Request,
    RequestError,
    StableDiffusionPipeline,
    UnsupportedModelError,
)
from sdrt.model_folder.folder import ModelFolder
from sdrt.model_folder.resolve import resolve_model
from tests.runtime.model_folder.damaged_folders import UNET, edit_json

MALFORMED = {
    "empty": "",
    "cut": "{",
    "list": "[]",
    "zeros": "\x00" * 9,
    "depth": "[" * 100_000,
    "digits": '{"a": ' + "1" * 5000 + "}",
}


def test_the_name_comes_from_the_source(signed: Path, model_copy: Path) -> None:
    assert ModelFolder.open(signed).name == "some-model"
    (signed / "sdrt.json").unlink()
    assert ModelFolder.open(signed).name == "model"


def test_another_programs_controlnet_is_left_alone(model_copy: Path) -> None:
    """Its graph has other inputs than sdrt's, and no config."""
    (model_copy / "sdrt.json").unlink(missing_ok=True)
    (model_copy / "controlnet").mkdir()
    shutil.copy(model_copy / "unet" / "model.onnx", model_copy / "controlnet")
    assert ModelFolder.open(model_copy).capabilities.controlnets == ()


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_malformed_json_names_the_file(model_copy: Path, name: str, text: str) -> None:
    (model_copy / name).write_text(text)
    with pytest.raises(IntegrityError, match=Path(name).name):
        StableDiffusionPipeline.from_pretrained(model_copy, provider="cpu").scheduler  # noqa: B018


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "StableDiffusion3Pipeline"}, "'StableDiffusion3Pipeline' is not supported"),
        ({"_class_name": None}, "None is not supported"),
        ({"unet": ["my_module", "UNet2DConditionModel"]}, "unet names class my_module.UNet2DConditionModel"),
        ({"unet": ["diffusers", "SD3Transformer2DModel"]}, "unet names class"),
        ({"scheduler": ["os", "system"]}, "scheduler names class os.system"),
        ({"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}, "'text_encoder_2'"),
        ({"unet": "evil.module.Class"}, "unet is 'evil.module.Class', expected a library and a class"),
        ({"unet": ["evil", "module", "Class"]}, "unet is"),
        ({"unet": True}, "unet is True"),
        ({"vae": {"class": "AutoencoderKL"}}, "vae is"),
        ({"extra": "evil.module.Class"}, "extra is"),
        ({"safety_checker": "evil.module.Class"}, "safety_checker is"),
    ],
)
def test_foreign_classes_are_refused(model_copy: Path, changes: dict[str, Any], words: str) -> None:
    edit_json(model_copy / "model_index.json", **changes)
    with pytest.raises(UnsupportedModelError, match=words):
        ModelFolder.open(model_copy)


def test_unused_components_are_ignored(model_copy: Path) -> None:
    edit_json(
        model_copy / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
        image_encoder=[None, None],
    )
    assert ModelFolder.open(model_copy).has("unet")


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (
            "unet",
            {"in_channels": 5},
            r"takes 5 channels \(it is .* with depth, .*expected to take 4 \(text to image\), 9 \(inpainting\), 8",
        ),
        ("unet", {"in_channels": 7}, "takes 7 channels, without class labels"),
        ("unet", {"cross_attention_dim": None}, "cross_attention_dim is None"),
        (
            "vae_decoder",
            {"scaling_factor": None},
            "scaling_factor is None, expected a number .*: correct it, or export the model",
        ),
        ("vae_decoder", {"scaling_factor": 0}, "scaling_factor is 0"),
        ("vae_decoder", {"scaling_factor": 10**400}, "scaling_factor is 1000"),
        ("vae_decoder", {"scaling_factor": float("nan")}, "scaling_factor is nan"),
        ("vae_decoder", {"block_out_channels": [1] * 2000}, "block_out_channels is"),
        ("vae_decoder", {"shift_factor": 0.1}, "shift_factor 0.1 is not supported: use a model without it"),
        ("unet", {"sample_size": [0, 8]}, "sample_size is 0"),
        ("unet", {"sample_size": 10**9}, "sample_size is 1000000000"),
        ("text_encoder", {"max_position_embeddings": 2}, "max_position_embeddings is 2"),
        ("text_encoder", {"max_position_embeddings": "77"}, "max_position_embeddings is '77'"),
        ("text_encoder", {"use_attention_mask": True}, "use_attention_mask"),
    ],
)
def test_configs_that_cannot_be_honoured(
    model_copy: Path, name: str, changes: dict[str, Any], words: str
) -> None:
    edit_json(model_copy / name / "config.json", **changes)
    with pytest.raises(ModelError, match=words):
        StableDiffusionPipeline.from_pretrained(model_copy, provider="cpu", threads=1).load()


def test_folders_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").touch()
    for name, words in {
        "empty": "is empty, expected a model folder",
        "file": "is a file, expected a model folder",
        "other": "holds no model_index.json, expected a model folder",
    }.items():
        with pytest.raises(ModelNotFoundError, match=f"{words}: make one with sdrt export"):
            resolve_model(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["", "no-such-model", "a/b/c", "../x/y", "modèle/été", "a b/c", "x/" + "y" * 5000]
)
def test_names_that_are_not_hub_ids(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_model(name)
    assert len(str(caught.value)) < 500


def test_offline_and_not_cached(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"'someone/some-model' is not in the cache.*offline"):
        resolve_model("someone/some-model", cache_dir=tmp_path)


def hub_cache(cache: Path, content: Path) -> None:
    """Copy `content` to where huggingface_hub caches someone/some-model."""
    commit = "0123456789012345678901234567890123456789"
    repository = cache / "models--someone--some-model"
    shutil.copytree(content, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)


def test_a_cached_hub_model_opens_offline(tiny_model: Path, tmp_path: Path) -> None:
    hub_cache(tmp_path / "hub", tiny_model)
    model = resolve_model("someone/some-model", cache_dir=tmp_path / "hub")
    assert model.name == "some-model"


@pytest.mark.parametrize("name", ["folder", "shapes"])
def test_only_a_hub_id_has_revisions(name: str, model_copy: Path) -> None:
    with pytest.raises(RequestError, match=r"revision is 'v1'.* is not a hub id"):
        resolve_model(model_copy if name == "folder" else name, revision="v1")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can read every file")
@pytest.mark.parametrize("name", ["", "unet", UNET, "model_index.json"])
def test_unreadable_files_are_reported(signed: Path, name: str) -> None:
    (signed / name).chmod(0)
    try:
        with pytest.raises(ModelError, match="cannot be"):
            StableDiffusionPipeline.from_pretrained(signed, provider="cpu").load()
    finally:
        (signed / name).chmod(0o755)


@pytest.mark.parametrize("where", ["stat", "open", "iterdir"])
def test_system_errors_are_reported(signed: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(Path, where)

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == signed or path.name == "model.onnx":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, where, refuse)
    if where == "iterdir":
        (signed / "model_index.json").unlink()
    with pytest.raises(ModelError, match="Permission denied"):
        StableDiffusionPipeline.from_pretrained(signed, provider="cpu").load()


@pytest.mark.skipif(sys.platform != "linux", reason="names are always Unicode there")
def test_a_folder_whose_name_is_not_unicode(model_copy: Path) -> None:
    odd = model_copy.rename(model_copy.parent / os.fsdecode(b"m\xffdel"))
    assert ModelFolder.open(odd).name == "m���del"


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"_diffusers_version": "0.6.0", "sample_size": 32}, (512, 512)),
        ({"_diffusers_version": "0.8.0.dev0", "sample_size": 8}, (512, 512)),
        ({"_diffusers_version": "0.6.0", "sample_size": 96}, (768, 768)),
        ({"_diffusers_version": "0.9.0", "sample_size": 32}, (256, 256)),
        ({"_diffusers_version": None, "sample_size": 32}, (256, 256)),
        ({"_diffusers_version": "0.6.0", "sample_size": [32, 40]}, (256, 320)),
        ({"_diffusers_version": "0.6.0", "sample_size": None}, (512, 512)),
    ],
    ids=str,
)
def test_default_sizes(model_copy: Path, changes: dict[str, Any], size: tuple[int, int]) -> None:
    """A small sample size from before diffusers 0.9 means 64."""
    edit_json(model_copy / "unet" / "config.json", **changes)
    pipeline = StableDiffusionPipeline.from_pretrained(model_copy, provider="cpu")
    assert pipeline.plan(Request(prompt="")).request.size == size


def test_a_vae_without_a_scaling_factor(model_copy: Path, tiny_model: Path) -> None:
    """diffusers' class has the factor of Stable Diffusion as its default."""
    images = []
    for drop in (False, True):
        for part in ("vae_encoder", "vae_decoder"):
            config = json.loads((model_copy / part / "config.json").read_text(encoding="utf-8"))
            config["scaling_factor"] = 0.18215
            if drop:
                del config["scaling_factor"]
            (model_copy / part / "config.json").write_text(json.dumps(config), encoding="utf-8")
        with StableDiffusionPipeline.from_pretrained(model_copy, provider="cpu", threads=1) as pipeline:
            images.append(pipeline("a cat", num_inference_steps=2, seed=1, output_type="np").images)
    np.testing.assert_array_equal(*images)


def test_weights_in_folders_below_belong_to_a_component(tiny_model: Path, tmp_path: Path) -> None:
    """Else what was compiled or tuned of other weights would be used."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "sdrt.json").unlink()  # as another program's
    weights = folder / "unet" / "data" / "weights.bin"
    weights.parent.mkdir()
    found = set()
    for size in (1, 2):
        weights.write_bytes(bytes(size))
        found.add(ModelFolder.open(folder).weights("unet").digest)
    assert len(found) == 2
