"""`sdrt tune`: prepares a model, lists what is prepared, removes it."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from tests.cli.commands import run


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDRT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_model_is_tuned_listed_and_removed() -> None:
    assert run("tune", "--list").stdout == "no graph is tuned; `sdrt tune -m MODEL` tunes those of a model\n"
    tuned = run("tune", "-m", "shapes")
    assert tuned.exit_code == 0
    assert "unet: tuned for this machine in " in tuned.stderr
    assert "shapes: 4 graphs are tuned, " in tuned.stderr
    assert "tuned for this machine" not in run("tune", "-m", "shapes").stderr

    table = run("tune", "--list").stdout
    assert all(name in table for name in ("text_encoder", "unet", "vae_decoder", "vae_encoder", "together "))
    rows = json.loads(run("tune", "--list", "--json").stdout)["tuned"]
    assert len(rows) == 4
    assert all(row["bytes"] > 1000 and Path(row["folder"]).is_dir() for row in rows)

    assert "removed 4 tuned graphs, " in run("tune", "--clear").stderr
    assert json.loads(run("tune", "--list", "--json").stdout) == {"tuned": []}


def test_images_of_a_tuned_model_are_the_same(tmp_path: Path) -> None:
    sums = []
    for option in ("--no-tune", "--tune", ""):
        path = tmp_path / f"image{option}.png"
        given = [option] if option else []
        made = run(
            *("generate", "a red circle", "--steps", "2", "--seed", "0", "-o", str(path), "--quiet", *given)
        )
        assert made.exit_code == 0, made.stderr
        sums.append(sha256(path.read_bytes()).hexdigest())
    assert len(set(sums)) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("tune", "--list", "--clear"), 2, "expected --list or --clear, not both"),
        (("tune", "-m", "no/such/folder/here"), 3, "no/such/folder/here"),
        (("tune", "extra"), 2, "extra"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...], code: int, line: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("error: ")
    assert line in result.stderr
