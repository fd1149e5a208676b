"""The folders of tuned graphs: records that are damaged, room on the disk, several processes."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import sdrt.onnx.tuned as tuned_graphs
from sdrt.onnx.graph_file import read_graph
from sdrt.onnx.session import Component
from sdrt.onnx.tuned import TunedGraph, every_tuned_graph, make_room

Open = Callable[..., Component]


def place(root: Path, name: str, size: int, age: float) -> TunedGraph:
    folder = root / "compiled" / "cpu-0" / name
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(size))
    (folder / "tuned.json").write_text(json.dumps({"of": name, "files": {}}))
    os.utime(folder / "tuned.json", (time.time() - age,) * 2)
    return TunedGraph(folder=folder, of=Path(name))


def test_those_that_were_used_longest_ago_go_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned_graphs, "MOST_BYTES", 5000)
    old, older = place(cache, "old", 2000, 100), place(cache, "older", 2000, 200)
    assert make_room(500) == ""
    assert (old.folder.is_dir(), older.folder.is_dir()) == (True, True)
    older.used()
    assert make_room(2500) == ""
    assert (old.folder.is_dir(), older.folder.is_dir()) == (False, True)
    assert "it would take" in make_room(6000)


def test_what_a_killed_process_left_goes_after_a_day(cache: Path) -> None:
    new, left = (cache / "compiled" / "cpu-0" / f".partial-{name}" for name in ("new", "left"))
    for folder in (new, left):
        folder.mkdir(parents=True)
    os.utime(left, (time.time() - 100_000,) * 2)
    make_room(1)
    assert (new.is_dir(), left.is_dir()) == (True, False)
    assert every_tuned_graph() == []


def test_the_faster_of_two_processes_wins(vae: Open) -> None:
    vae(tune=True)
    (first,) = every_tuned_graph()
    partial = first.begin()
    for name in ("graph.onnx", "weights"):
        shutil.copy(first.folder / name, partial / name)
    written = (first.folder / "weights").stat().st_ino
    first.finish(partial, {})
    assert first.is_whole()
    assert ((first.folder / "weights").stat().st_ino, partial.exists()) == (written, False)


def rewritten(place: TunedGraph, **changes: object) -> None:
    """Change what `tuned.json` says, as somebody could who knows how it is written."""
    assert place.record is not None
    tuned_graphs._write_record(place.folder / "tuned.json", {**place.record, **changes})


def test_a_changed_record_does_not_count(vae: Open) -> None:
    """Else a LoRA might change another weight than its own."""
    vae(tune=True)
    (place,) = every_tuned_graph()
    path = place.folder / "tuned.json"
    path.write_text(path.read_text().replace("conv_in", "conv_im", 1))
    assert not place.is_whole()


@pytest.mark.parametrize(
    "entry",
    [
        *(0, None, [], {}, "abc", [1, 2, 3], ["{stored}", 8.0, False], ["{stored}", True, False]),
        *(["{stored}", 7, False], ["{stored}", 8, 1], ["/etc/passwd", 0, False], ["{stored}", 16, True]),
    ],
)
def test_weights_that_the_record_describes_wrongly_are_not_changed_there(vae: Open, entry: object) -> None:
    vae(tune=True)
    (place,) = every_tuned_graph()
    assert place.record is not None
    # The latents have 4 channels, so no block of input channels has 16.
    name, (stored, *_) = next(
        (name, one) for name, one in place.record["weights"].items() if name.endswith("conv_in.weight")
    )
    shape = read_graph(place.graph).weights[stored].shape
    given = (
        [one.format(stored=stored) if isinstance(one, str) else one for one in entry]
        if isinstance(entry, list)
        else entry
    )
    rewritten(place, weights={name: given})
    assert place.is_whole()
    assert place.changed({name: np.zeros(shape, np.float32)}) is None
    for weights in (None, [], 5, "abc"):
        rewritten(place, weights=weights)
        assert place.changed({name: np.zeros(shape, np.float32)}) is None


def test_a_record_that_is_too_large_is_not_read(vae: Open) -> None:
    vae(tune=True)
    (place,) = every_tuned_graph()
    rewritten(place, more="x" * (1 << 24))
    assert not place.is_whole()


def test_a_copied_cache_is_hashed_once(vae: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    vae(tune=True)
    (place,) = every_tuned_graph()
    os.utime(place.graph)
    os.utime(place.folder / "weights")
    assert place.is_whole()
    monkeypatch.setattr(tuned_graphs, "sha256", lambda _: "")
    assert place.is_whole()


def test_nothing_is_removed_for_what_finds_no_room_anyway(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned_graphs, "MOST_BYTES", 5000)
    old = place(cache, "old", 2000, 100)
    assert "it would take" in make_room(6000)
    usage = shutil.disk_usage(cache)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "are free in" in make_room(4000)
    assert old.is_there


def test_a_place_that_is_damaged_is_taken(vae: Open) -> None:
    vae(tune=True)
    (first,) = every_tuned_graph()
    partial = first.begin()
    for name in ("graph.onnx", "weights"):
        shutil.copy(first.folder / name, partial / name)
    (first.folder / "weights").write_bytes(b"")
    first.finish(partial, {})
    assert first.is_whole()


def test_two_processes_that_tune_at_once_both_go_on(vae: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one finishes just when this one has seen that nothing is there."""
    vae(tune=True)
    (first,) = every_tuned_graph()
    partials = [first.begin(), first.begin()]
    for partial in partials:
        for name in ("graph.onnx", "weights"):
            shutil.copy(first.folder / name, partial / name)
    first.remove()
    winner = (partials[1] / "weights").stat().st_ino
    rename, is_whole, other = Path.rename, TunedGraph.is_whole, [partials[1]]

    def late(self: TunedGraph) -> bool:
        found = is_whole(self)
        if other:
            self.finish(other.pop(), {})
        return found

    def renamed(self: Path, target: Path) -> Path:
        if other:
            first.finish(other.pop(), {})
        return rename(self, target)

    monkeypatch.setattr(TunedGraph, "is_whole", late)
    monkeypatch.setattr(Path, "rename", renamed)
    first.finish(partials[0], {})
    assert is_whole(first)
    assert (first.folder / "weights").stat().st_ino == winner
    assert not any(partial.exists() for partial in partials)
