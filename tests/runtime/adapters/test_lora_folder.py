"""A folder of LoRAs: names are found by A1111's rules, and hashes are A1111's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt.adapters import lora_folder
from sdrt.adapters.lora_folder import LoraFolder, file_in, short_hash
from sdrt.common import safetensors_file
from sdrt.errors import ModelNotFoundError, RequestError
from tests.safetensors_files import write_file

DATA = np.arange(4, dtype=np.float32).tobytes()


def write(path: Path, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    write_file(path, {"__metadata__": metadata, **header}, [DATA])
    return path


def test_names_are_those_of_files_or_of_the_trainer(tmp_path: Path) -> None:
    ink = write(tmp_path / "ink v2.safetensors", ss_output_name="trained")
    oil = write(tmp_path / "style" / "oil.safetensors")
    folder = LoraFolder(tmp_path)
    assert [folder.find(name) for name in ("ink v2", "ink v2.safetensors", "trained")] == [ink] * 3
    assert [folder.find(name) for name in ("oil", "style/oil", "style\\oil")] == [oil] * 3


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ink, read = write(tmp_path / "ink.safetensors", ss_output_name="old"), []
    monkeypatch.setattr(
        lora_folder, "read_header", lambda path: read.append(path) or safetensors_file.read_header(path)
    )
    folder = LoraFolder(tmp_path)
    for _ in range(2):
        with pytest.raises(RequestError, match="is called 'newer'"):
            folder.find("newer")
    assert read == [ink]
    write(ink, ss_output_name="newer")
    assert folder.find("newer") == ink
    assert read == [ink] * 2


def test_every_file_has_a_name_by_which_it_is_found(tmp_path: Path) -> None:
    files = [write(tmp_path / one) for one in ("b/ink.safetensors", "ink.safetensors", "c/d/oil.SAFETENSORS")]
    folder = LoraFolder(tmp_path)
    assert folder.names() == ["./b/ink", "./ink", "oil"]
    assert {folder.find(name) for name in folder.names()} == set(files)


def test_a_missing_name_and_an_ambiguous_one_are_refused(tmp_path: Path) -> None:
    for one in ("a", "b"):
        write(tmp_path / one / "ink.safetensors")
    (tmp_path / "notes.txt").write_text("no LoRA")
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    with pytest.raises(RequestError, match=r"several files .* are called 'ink': write the subfolder"):
        LoraFolder(tmp_path).find("ink")
    with pytest.raises(RequestError, match=r"no LoRA in .* is called 'inc' \(did you mean ink\?\)"):
        LoraFolder(tmp_path).find("inc")
    with pytest.raises(RequestError, match="is called 'notes'"):
        LoraFolder(tmp_path).find("notes")
    with pytest.raises(ModelNotFoundError, match="is no folder"):
        LoraFolder(tmp_path / "notes.txt")


def test_the_hash_is_that_of_the_tensors(tmp_path: Path) -> None:
    """So that changing a file's metadata does not change it. Some trainers write it into the metadata."""
    plain, described = write(tmp_path / "a.safetensors"), write(tmp_path / "b.safetensors", note="x" * 99)
    assert short_hash(plain) == short_hash(described) == hashlib.sha256(DATA).hexdigest()[:12]
    assert short_hash(write(tmp_path / "c.safetensors", sshs_model_hash="Ab" * 32)) == "abababababab"
    assert short_hash(write(tmp_path / "d.safetensors", sshs_model_hash="no")) == short_hash(plain)


def test_a_folder_of_one_file_stands_for_it(tmp_path: Path) -> None:
    one = write(tmp_path / "one" / "x.safetensors")
    assert file_in(tmp_path / "one") == file_in(str(one)) == one
    write(tmp_path / "one" / "y.safetensors")
    with pytest.raises(
        ModelNotFoundError, match=r"\(it has x.safetensors, y.safetensors\); name one as FOLDER/FILE"
    ):
        file_in(tmp_path / "one")
    assert file_in(tmp_path / "one", "x.safetensors") == one
    usual = write(tmp_path / "one" / "pytorch_lora_weights.safetensors")
    assert file_in(tmp_path / "one") == usual
    with pytest.raises(ModelNotFoundError, match="there is no LoRA file"):
        file_in(tmp_path / "none")
