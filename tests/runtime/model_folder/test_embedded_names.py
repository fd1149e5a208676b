"""The names of embedded models, and the errors of an installation without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrt import ModelNotFoundError
from sdrt.model_folder import resolve as source


def test_a_folder_with_the_same_name_gives_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    path = source.resolve_model("shapes", notify=said.append).path
    assert not said
    (tmp_path / "shapes").mkdir()
    assert source.resolve_model("shapes", notify=said.append).path == path
    assert said == ["shapes means the embedded model: for the folder of that name, give ./shapes"]


def test_a_path_never_means_the_embedded_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ModelNotFoundError, match="for the embedded model, pass the string 'shapes', not a path"
    ):
        source.resolve_model(Path("shapes"))


def test_an_installation_without_the_model_raises_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(source, "embedded_path", lambda name: None)
    with pytest.raises(ModelNotFoundError, match="lacks the embedded model shapes, the default"):
        source.resolve_model("shapes")
