from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from sdrt import RequestError, SdrtError
from sdrt.cli.generate.outputs import check_capacity, plan_paths, write_atomically


def names(pattern: str | None, seeds: range, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(folder)
    return [str(path) for path in plan_paths(pattern, seeds, force=False)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (None, ["sdrt-7.png", "sdrt-8.png"]),
        ("a.png", ["a-0.png", "a-1.png"]),
        ("a-{seed}.jpg", ["a-7.jpg", "a-8.jpg"]),
        ("a-{index:03}.WEBP", ["a-000.WEBP", "a-001.WEBP"]),
        ("{{a}}.png", ["{a}-0.png", "{a}-1.png"]),
        ("folder", [os.path.join("folder", name) for name in ("sdrt-7.png", "sdrt-8.png")]),  # noqa: PTH118
    ],
)
def test_names(
    pattern: str | None, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    assert names(pattern, range(7, 9), tmp_path, monkeypatch) == expected
    assert os.listdir(tmp_path) == ["folder"]  # noqa: PTH208


def test_one_image_keeps_a_plain_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names("a.png", range(1), tmp_path, monkeypatch) == ["a.png"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a.gif", r"has the extension '\.gif': expected one of \.png"),
        ("a", "has the extension ''"),
        ("{prompt}.png", "expected {seed}, {index}"),
        ("{seed.real}.png", "expected {seed}, {index}"),
        ("{seed!r}.png", "expected {seed}, {index}"),
        ("{seed:999999999}.png", "expected {seed}, {index}"),
        ("{}.png", "expected {seed}, {index}"),
        ("a{.png", "literal brace"),
        ("missing/a.png", "the folder missing does not exist"),
        ("file/a.png", "the folder file does not exist"),
        ("n" * 300 + ".png", "cannot be written"),
        ("there.png", "exists already: .* --force"),
        ("dangling.png", "exists already"),
        ("folder.png/../there.png", "exists already"),
    ],
)
def test_refused_before_any_work(
    pattern: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "there.png").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to("nowhere")
    before = sorted(os.listdir(tmp_path))  # noqa: PTH208
    with pytest.raises(RequestError, match=message):
        names(pattern, range(1), tmp_path, monkeypatch)
    assert sorted(os.listdir(tmp_path)) == before  # noqa: PTH208


def test_force_allows_an_existing_file_but_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "there.png").touch()
    assert plan_paths(str(tmp_path / "there.png"), [0], force=True) == (tmp_path / "there.png",)
    (tmp_path / "x-0.png").mkdir()
    with pytest.raises(RequestError, match="is a folder"):
        plan_paths(str(tmp_path / "x.png"), [0, 1], force=True)


def test_a_format_that_cannot_hold_the_image_is_refused() -> None:
    with pytest.raises(RequestError, match="16383 pixels a side"):
        check_capacity(Path("a.webp"), sides=(16384, None), text=0)
    with pytest.raises(RequestError, match="too long for JPEG's metadata"):
        check_capacity(Path("a.jpg"), sides=(None, None), text=20_000)
    check_capacity(Path("a.png"), sides=(16384, None), text=20_000)


def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def interrupted(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted, force=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    def full(file: BinaryIO) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(SdrtError, match=r"a\.png cannot be written: No space left"):
        write_atomically(tmp_path / "a.png", full, force=False)
    assert not list(tmp_path.iterdir())


def test_a_file_that_appeared_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.png"

    def slow(file: BinaryIO) -> None:
        path.write_bytes(b"theirs")
        file.write(b"ours")

    with pytest.raises(RequestError, match="exists already"):
        write_atomically(path, slow, force=False)
    assert path.read_bytes() == b"theirs"


def test_a_file_that_appears_at_the_last_moment_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs with the same name: only the step that gives the file its name can tell."""
    monkeypatch.setattr("sdrt.images.files._check_absent", lambda path, force: None)
    path = tmp_path / "a.png"
    path.write_bytes(b"theirs")
    with pytest.raises(RequestError, match="exists already"):
        write_atomically(path, lambda file: file.write(b"ours"), force=False)
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("taken", [False, True])
def test_a_file_system_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "a.png"
    if taken:
        path.write_bytes(b"theirs")
        with pytest.raises(RequestError, match="exists already"):
            write_atomically(path, lambda file: file.write(b"ours"), force=False)
    else:
        write_atomically(path, lambda file: file.write(b"ours"), force=False)
    assert path.read_bytes() == (b"theirs" if taken else b"ours")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "side", "fits"),
    [
        ("a.jpg", 70_000, "use .png"),
        ("a.webp", 20_000, "use .png"),
        ("a.png", 100_000_000_000, "make a smaller image"),
        ("a.jpg", 100_000_000_000, "make a smaller image"),
    ],
)
def test_a_format_that_holds_the_image_is_advised_if_there_is_one(name: str, side: int, fits: str) -> None:
    with pytest.raises(RequestError, match="cannot hold the image") as caught:
        check_capacity(Path(name), sides=(side, None), text=0)
    assert caught.value.fits == fits
