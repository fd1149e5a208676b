"""Model folders: which are refused and with which message, hashes, and names that stand for folders."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
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
from sdrt.model_folder.folder import Manifest, ModelFolder
from sdrt.model_folder.manifest import FileRecord
from sdrt.model_folder.resolve import resolve_model

UNET = "unet/model.onnx"


@pytest.fixture
def signed(model_copy: Path) -> Path:
    """A model folder with a manifest of its files."""
    files = {
        path.relative_to(model_copy).as_posix(): FileRecord.of(path)
        for path in sorted(model_copy.rglob("*"))
        if path.is_file()
    }
    Manifest(
        family="sd1",
        target="cpu",
        dtype="float32",
        opset=20,
        exporter="sdrt",
        source={"id": "someone/some-model", "revision": None},
        versions={"sdrt": "0"},
        files=files,
    ).write(model_copy)
    return model_copy


MALFORMED = {
    "empty": "",
    "cut": "{",
    "list": "[]",
    "zeros": "\x00" * 9,
    "depth": "[" * 100_000,
    "digits": '{"a": ' + "1" * 5000 + "}",
}
RECORD = {"size": 1, "sha256": "0" * 64}


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap(folder: Path) -> None:
    first, second = folder / UNET, folder / "vae_decoder/model.onnx"
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda folder: (folder / UNET).unlink(),
    "truncated": lambda folder: (folder / UNET).write_bytes((folder / UNET).read_bytes()[:-100]),
    "zeroed": lambda folder: (folder / UNET).write_bytes(bytes((folder / UNET).stat().st_size)),
    "empty": lambda folder: (folder / UNET).write_bytes(b""),
    "swapped": swap,
    "bit flipped": lambda folder: flip_bit(folder / UNET),
    "bit flipped in the tokenizer": lambda folder: flip_bit(folder / "tokenizer/merges.txt"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_by_the_manifest(signed: Path, damage: str) -> None:
    DAMAGE[damage](signed)
    named = "merges.txt" if "tokenizer" in damage else "model.onnx"
    with pytest.raises(IntegrityError, match=rf"{named} (is missing|is damaged|has \d+ bytes).*export"):
        ModelFolder.open(signed).verify(lambda message: None)


@pytest.mark.parametrize("damage", ["missing", "truncated", "zeroed", "empty", "swapped"])
def test_damage_is_found_without_a_manifest(model_copy: Path, damage: str) -> None:
    DAMAGE[damage](model_copy)
    with pytest.raises(ModelError, match=r"model\.onnx.*export") as caught:
        StableDiffusionPipeline.from_pretrained(model_copy, provider="cpu", threads=1).load()
    assert "\n" not in str(caught.value)


def test_hashes_are_checked_once_and_again_after_a_change(signed: Path) -> None:
    messages: list[str] = []
    model = ModelFolder.open(signed)
    assert not model.is_verified()
    assert model.verify(messages.append)
    assert model.verify(messages.append)
    assert model.is_verified()
    assert len(messages) == 2
    assert messages[0].startswith("hashes: checking ")
    flip_bit(signed / UNET)
    assert not model.is_verified()
    with pytest.raises(IntegrityError, match="damaged"):
        model.verify(messages.append)


def test_a_read_only_cache_causes_another_check(signed: Path, own_cache: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    assert ModelFolder.open(signed).verify(lambda message: None)


def test_a_folder_in_place_of_the_manifest_is_named(model_copy: Path) -> None:
    (model_copy / "sdrt.json").mkdir()
    with pytest.raises(IntegrityError, match=r"model/sdrt\.json is not a file: copy the whole model folder"):
        ModelFolder.open(model_copy)


def test_a_folder_without_manifest_has_nothing_to_check(model_copy: Path) -> None:
    assert not ModelFolder.open(model_copy).verify()


def test_the_name_comes_from_the_source(signed: Path, model_copy: Path) -> None:
    assert ModelFolder.open(signed).name == "some-model"
    (signed / "sdrt.json").unlink()
    assert ModelFolder.open(signed).name == "model"


def test_manifest_survives_a_round_trip(signed: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(signed)
    manifest.write(tmp_path / "copy.json")
    assert Manifest.read(tmp_path / "copy.json") == manifest


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"format_version": 2}, UnsupportedModelError, "format_version is 2.*pip install -U"),
        ({"surprise": 1}, UnsupportedModelError, "unknown key 'surprise'"),
        ({"opset": "20"}, IntegrityError, "'opset' must be a JSON int"),
        ({"files": {"../x": {"size": 1, "sha256": ""}}}, IntegrityError, "outside the model folder"),
        ({"files": {"x": 3}}, IntegrityError, "must have a size"),
        ({"files": {"C:/x": RECORD}}, IntegrityError, "outside the model folder"),
        ({"files": {"unet\\x": RECORD}}, IntegrityError, "outside the model folder"),
        ({"files": {"\ud800": RECORD}}, IntegrityError, "outside the model folder"),
        ({"files": {"x": RECORD | {"sha256": 5}}}, IntegrityError, "sha256 of 'x' must be 64 hex"),
        ({"files": {"x": RECORD | {"sha256": "a"}}}, IntegrityError, "sha256 of 'x' must be 64 hex"),
        ({"files": {"x": RECORD | {"size": "1"}}}, IntegrityError, "size of 'x' must be a count"),
        ({"files": {"x": RECORD | {"size": [1]}}}, IntegrityError, "size of 'x' must be a count"),
        ({"source": {"id": 5}}, IntegrityError, "source.id must be a JSON str"),
        ({"versions": {"torch": {}}}, IntegrityError, "versions.torch must be a JSON str"),
        ({"components": {"unet": 5}}, IntegrityError, "components.unet must list"),
        ({"components": {"unet": {"parity": 5}}}, IntegrityError, "components.unet must list"),
        ({"components": {"unet": {"parity": [{"relative_error": "0"}]}}}, IntegrityError, "components.unet"),
        ({"components": {"unet": {"parity": [{"relative_error": float("nan")}]}}}, IntegrityError, "parity"),
        ({"components": {"unet": {"parity": [{"relative_error": 10**400}]}}}, IntegrityError, "parity"),
        ({"files": {"x" * 300: RECORD}}, IntegrityError, "File name too long|is missing"),
        ({"opset": True}, IntegrityError, "'opset' must be a JSON int"),
        (
            {"defaults": {"guidance_scale": 1e5}},
            IntegrityError,
            r"defaults\.guidance_scale is 100000\.0, expected a number from -10000 to 10000: correct it, or export",
        ),
        ({"defaults": {"guidance_scale": float("nan")}}, IntegrityError, "is nan, expected a number from"),
        ({"defaults": {"guidance_scale": "7"}}, IntegrityError, "is '7', expected a number from"),
        (
            {"defaults": {"steps": 20}},
            IntegrityError,
            "a key of defaults is 'steps', expected guidance_scale",
        ),
    ],
)
def test_bad_manifest(signed: Path, changes: dict[str, Any], kind: type[Exception], words: str) -> None:
    edit_json(signed / "sdrt.json", **changes)
    with pytest.raises(kind, match=words):
        ModelFolder.open(signed)


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
            r"takes 5 channels.*expected to take 4 \(text to image\), 9 \(inpainting\), 8",
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


@pytest.mark.parametrize("name", [UNET, "vae_decoder/model.onnx", "tokenizer/merges.txt", "unet/config.json"])
def test_a_manifest_must_list_every_file_that_is_read(signed: Path, name: str) -> None:
    manifest = json.loads((signed / "sdrt.json").read_text(encoding="utf-8"))
    del manifest["files"][name]
    edit_json(signed / "sdrt.json", files=manifest["files"])
    with pytest.raises(IntegrityError, match=f"does not list {name}"):
        ModelFolder.open(signed)


def test_a_manifest_must_list_external_data(signed: Path) -> None:
    (signed / "unet" / "other.onnx_data").write_bytes(b"weights")
    with pytest.raises(IntegrityError, match=r"does not list unet/other\.onnx_data"):
        ModelFolder.open(signed)
    (signed / "unet" / "other.onnx_data").rename(signed / "unet" / ".hidden")
    ModelFolder.open(signed)


def test_intact_files_are_remembered_if_another_is_damaged(signed: Path, own_cache: Path) -> None:
    last = sorted(ModelFolder.open(signed).manifest.files)[-1]  # type: ignore[union-attr]
    intact = (signed / last).read_bytes()
    flip_bit(signed / last)
    with pytest.raises(IntegrityError, match="damaged"):
        ModelFolder.open(signed).verify(ignore)
    (signed / last).write_bytes(intact)
    messages: list[str] = []
    assert ModelFolder.open(signed).verify(messages.append)
    assert messages[0].startswith("hashes: checking 1 files")


def test_deleted_files_are_forgotten(signed: Path, tmp_path: Path, own_cache: Path) -> None:
    moved = tmp_path / "moved"
    ModelFolder.open(signed).verify(ignore)
    signed.rename(moved)
    ModelFolder.open(moved).verify(ignore)
    remembered = json.loads((own_cache / "verified.json").read_text(encoding="utf-8"))
    assert remembered
    assert all(str(moved) in path for path in remembered)


def test_hashing_is_reported_on_stderr(signed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ModelFolder.open(signed).verify()
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.startswith("hashes: checking ")


@pytest.mark.parametrize("name", ["folder", "shapes"])
def test_only_a_hub_id_has_revisions(name: str, model_copy: Path) -> None:
    with pytest.raises(RequestError, match=r"revision is 'v1'.* is not a hub id"):
        resolve_model(model_copy if name == "folder" else name, revision="v1")


def ignore(message: str) -> None:
    """Show nothing."""


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


def test_a_damaged_hash_cache_causes_another_check(signed: Path, own_cache: Path) -> None:
    own_cache.mkdir()
    (own_cache / "verified.json").write_text("[" * 100_000)
    messages: list[str] = []
    assert ModelFolder.open(signed).verify(messages.append)
    assert any("checking" in message for message in messages)
    assert ModelFolder.open(signed).is_verified()


def test_without_a_cache_every_file_is_hashed_every_time(
    signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDRT_CACHE", "~nobody-of-that-name/cache")
    model = ModelFolder.open(signed)
    for _ in range(2):
        messages: list[str] = []
        assert model.verify(messages.append)
        assert any("checking" in message for message in messages)
    flip_bit(signed / UNET)
    with pytest.raises(IntegrityError, match="damaged"):
        model.verify(ignore)


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
