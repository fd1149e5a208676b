"""What the name of an embedded model means, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrt import ModelNotFoundError
from sdrt.model_folder import resolve as source


def test_a_folder_of_that_name_is_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    path = source.resolve_model("shapes", notify=said.append).path
    assert not said
    (tmp_path / "shapes").mkdir()
    assert source.resolve_model("shapes", notify=said.append).path == path
    assert said == ["shapes is the embedded model; the folder of that name is ./shapes"]


def test_a_path_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match="the embedded model is the string 'shapes', not a path"):
        source.resolve_model(Path("shapes"))


def test_an_installation_without_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(source, "embedded_path", lambda name: None)
    with pytest.raises(ModelNotFoundError, match="lacks the embedded model shapes, the default"):
        source.resolve_model("shapes")
