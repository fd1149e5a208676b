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
        (("tune", "--json"), 2, "--json is given without --list"),
        (("tune", "--clear", "--json"), 2, "--json is given without --list"),
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


def made(folder: Path, record: str = "{}") -> Path:
    """A folder that looks like a tuned graph."""
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(100))
    (folder / "tuned.json").write_text(record)
    return folder


def test_clear_removes_what_sdrt_made_and_nothing_else(cache: Path, tmp_path: Path) -> None:
    compiled, elsewhere = cache / "compiled", made(tmp_path / "elsewhere")
    tuned, partial = made(compiled / "cpu-0" / "unet-1"), made(compiled / "cpu-0" / ".partial-1")
    notes = compiled / "cpu-0" / "notes" / "thesis.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    beside = made(compiled / "cpu-0" / "vae-2") / "mine.txt"
    beside.write_text("mine")
    (compiled / "cpu-0" / "link").symlink_to(elsewhere, target_is_directory=True)
    result = run("tune", "--clear")
    assert (result.exit_code, result.stderr) == (0, "removed 2 tuned graphs, 204 B\n")
    assert (tuned.exists(), partial.exists()) == (False, False)
    assert all(path.is_file() for path in (notes, beside, elsewhere / "weights", elsewhere / "tuned.json"))


def test_clear_says_what_stays(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(cache / "compiled" / "cpu-0" / "unet-1")
    monkeypatch.setattr(Path, "unlink", refuse)
    result = run("tune", "--clear")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: 1 graph is still there: close the programs that use")


def refuse(path: Path, missing_ok: bool = False) -> None:
    raise PermissionError(13, "in use", str(path))


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "[" * 100_000,
        "[]",
        '{"of": 3, "files": {}}',
        '{"files": []}',
        "1" * 5000,
        "\0",
        '{"of": "\\ud800"}',
    ],
)
def test_a_damaged_record_is_listed_as_unknown(cache: Path, record: str) -> None:
    made(cache / "compiled" / "cpu-0" / "unet-1", record)
    assert run("tune", "--list").stdout.splitlines()[1].startswith("unet ")
    (row,) = json.loads(run("tune", "--list", "--json").stdout)["tuned"]
    assert row["of"] == "unknown"
    assert run("tune", "--clear").exit_code == 0


def test_graphs_that_cannot_be_tuned_are_an_error(cache: Path) -> None:
    cache.write_text("this is no folder")
    result = run("tune", "-m", "shapes", "-q")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(
        "error: shapes: 0 graphs are tuned, and 4 could not be: unet: not tuned for this machine: "
    )
