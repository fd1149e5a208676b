"""The destination holds the old model, the new one, or none: whole, and nothing beside it after the next run."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sdrt.errors import ExportError, RequestError
from sdrt_export.transaction import check_space, replace_folder

WRITER = Path(__file__).with_name("killed_writer.py")


def write(folder: Path, content: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("model_index.json", "weights"):
        (folder / name).write_text(content)


def content(folder: Path) -> str | None:
    """What the whole model in `folder` says; None where there is no folder."""
    if not folder.exists():
        return None
    (said,) = {(folder / name).read_text() for name in ("model_index.json", "weights")}
    assert len(list(folder.iterdir())) == 2
    return said


@pytest.fixture(params=["model", "model [1] *", "modèle 模型"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / request.param


def alone(destination: Path) -> bool:
    """Nothing but the model is in its parent folder."""
    return {path.name for path in destination.parent.iterdir()} <= {destination.name}


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("while writing", "old"),
        ("before rename 1", "old"),
        ("after rename 1", None),
        ("before rename 2", None),
        ("after rename 2", "new"),
    ],
)
def test_killed_while_replacing(destination: Path, point: str, left: str | None) -> None:
    write(destination, "old")
    killed = subprocess.run([sys.executable, WRITER, destination, point], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert content(destination) == left
    # The next run, even one that is refused, clears up: what was moved away is back.
    with pytest.raises(RequestError, match="--force"), replace_folder(destination, force=False):
        raise AssertionError
    assert content(destination) == (left or "old")
    assert alone(destination)


@pytest.mark.parametrize("point", ["while writing", "before rename 1", "after rename 1"])
def test_killed_while_writing_the_first(tmp_path: Path, point: str) -> None:
    destination = tmp_path / "out" / "model"
    subprocess.run([sys.executable, WRITER, destination, point], check=False)
    assert content(destination) == ("new" if point == "after rename 1" else None)
    with replace_folder(destination, force=True) as staging:
        write(staging, "newer")
    assert content(destination) == "newer"
    assert alone(destination)


def test_not_killed(destination: Path) -> None:
    write(destination, "old")
    subprocess.run([sys.executable, WRITER, destination, "never"], check=True)
    assert content(destination) == "new"
    assert alone(destination)


@pytest.mark.parametrize("error", [ExportError("differs"), KeyboardInterrupt(), OSError(28, "disk full")])
def test_a_failing_block_changes_nothing(destination: Path, error: BaseException) -> None:
    def fail() -> None:
        with replace_folder(destination, force=True) as staging:
            (staging / "model_index.json").write_text("half")
            raise error

    write(destination, "old")
    with pytest.raises((ExportError, KeyboardInterrupt)):
        fail()
    assert content(destination) == "old"
    assert alone(destination)


@pytest.mark.parametrize("failing", [{1}, {2}, {2, 3}])
@pytest.mark.parametrize("error", [OSError(13, "Permission denied"), KeyboardInterrupt()])
def test_a_swap_that_fails_loses_nothing(
    destination: Path, failing: set[int], error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(destination, "old")
    real, count = Path.rename, 0

    def rename(path: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count in failing:
            raise error
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises((ExportError, KeyboardInterrupt)), replace_folder(destination, force=True) as staging:
        write(staging, "new")
    monkeypatch.undo()
    if failing != {2, 3}:
        assert content(destination) == "old"
        assert alone(destination)
    # Where not even that could be undone, the next run does it, though it fails.
    with pytest.raises(ExportError), replace_folder(destination, force=True):
        raise ExportError("differs")
    assert content(destination) == "old"
    assert alone(destination)


def test_folders_made_for_nothing_are_removed(tmp_path: Path) -> None:
    with pytest.raises(ExportError), replace_folder(tmp_path / "a" / "b" / "model", force=False):
        raise ExportError("differs")
    assert not list(tmp_path.iterdir())
    with replace_folder(tmp_path / "a" / "b" / "model", force=False) as staging:
        write(staging, "new")
    assert content(tmp_path / "a" / "b" / "model") == "new"


def test_two_at_once(destination: Path) -> None:
    write(destination, "old")
    with replace_folder(destination, force=True) as staging:
        write(staging, "first")
        with (
            pytest.raises(RequestError, match="another export is writing this folder"),
            replace_folder(destination, force=True),
        ):
            raise AssertionError
    assert content(destination) == "first"
    assert alone(destination)


def test_two_at_once_by_different_paths(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    with replace_folder(tmp_path / "out" / "model", force=False) as staging:
        write(staging, "first")
        for other in (tmp_path / "link" / "model", tmp_path / "out" / ".." / "out" / "model"):
            with pytest.raises(RequestError, match="another export"), replace_folder(other, force=True):
                raise AssertionError
    assert content(tmp_path / "out" / "model") == "first"


def test_neighbours_are_not_touched(tmp_path: Path) -> None:
    """A destination whose name is a prefix of another's, being written."""
    with replace_folder(tmp_path / "model.2", force=False) as second:
        write(second, "second")
        with replace_folder(tmp_path / "model", force=False) as first:
            write(first, "first")
    assert content(tmp_path / "model") == "first"
    assert content(tmp_path / "model.2") == "second"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    destination = tmp_path / "model"
    destination.mkdir()
    with replace_folder(destination, force=False) as staging:
        write(staging, "new")
    assert content(destination) == "new"


def _a_file(path: Path) -> None:
    path.write_text("precious")


def _a_link(path: Path) -> None:
    write(path.with_name("elsewhere"), "precious")
    path.symlink_to("elsewhere")


def _other_files(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("precious")


@pytest.mark.parametrize(
    ("make", "force", "says"),
    [
        (lambda path: write(path, "old"), False, "pass --force to replace it"),
        (_a_file, True, "exists and is not a folder"),
        (_a_link, True, "exists and is not a folder"),
        (_other_files, True, "is not a model folder"),
        (_other_files, False, "exists"),
    ],
    ids=["exists", "file", "link", "no model, forced", "no model"],
)
def test_refused_destinations(tmp_path: Path, make: Callable[[Path], None], force: bool, says: str) -> None:
    destination = tmp_path / "model"
    make(destination)
    before = {path: path.is_file() and path.read_text() for path in tmp_path.rglob("*")}
    with pytest.raises(RequestError, match=says) as refused, replace_folder(destination, force):
        raise AssertionError
    assert str(destination) in str(refused.value)
    assert {
        path: path.is_file() and path.read_text() for path in tmp_path.rglob("*") if path in before
    } == before
    assert {path.name for path in tmp_path.iterdir()} <= {"model", "elsewhere", "cache"}


def test_unwritable_destination(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    destination = tmp_path / "file" / "model"
    with (
        pytest.raises(RequestError, match=r"cannot be written.*choose another folder"),
        replace_folder(destination, force=True),
    ):
        raise AssertionError
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_a_folder_without_files_is_not_taken_for_a_locked_one() -> None:
    with (
        pytest.raises(RequestError, match=r"/proc/model cannot be written"),
        replace_folder(Path("/proc/model"), force=False),
    ):
        raise AssertionError


def test_too_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    check_space(tmp_path / "not" / "yet", 10**9)
    with pytest.raises(ExportError, match=r"needs 3\.4 GB and 1\.0 GB are free"):
        check_space(tmp_path / "not" / "yet", 3_400_000_000)


@pytest.mark.parametrize("inside", ["", "part"])
def test_what_is_read_is_not_replaced(tmp_path: Path, inside: str) -> None:
    destination = tmp_path / "model"
    write(destination, "old")
    (destination / "part").mkdir()
    link = tmp_path / "link"
    link.symlink_to(destination, target_is_directory=True)
    for reading in (destination / inside, link / inside):
        with (
            pytest.raises(RequestError, match="choose another folder"),
            replace_folder(destination, force=True, reading=reading),
        ):
            raise AssertionError
    assert (destination / "model_index.json").read_text() == "old"
