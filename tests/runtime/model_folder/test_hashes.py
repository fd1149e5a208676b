"""The hashes of a model's files: which damage is found, and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdrt import IntegrityError, ModelError, StableDiffusionPipeline, UnsupportedModelError
from sdrt.model_folder.folder import Manifest, ModelFolder
from tests.runtime.model_folder.damaged_folders import UNET, edit_json

RECORD = {"size": 1, "sha256": "0" * 64}


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


def ignore(message: str) -> None:
    """Show nothing."""


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
