"""`sdrt batch` on this machine: what it reads, what it writes, and what it makes when it is run again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from filelock import FileLock
from PIL import Image

from sdrt import StableDiffusionPipeline
from sdrt.batch.place import Answer, Group, Lost
from sdrt.batch.row import Row
from sdrt.batch.run import Batch
from sdrt.images.metadata import read_metadata
from sdrt.serve.task import FileFormat, Made, MadeImage
from tests.batch.conftest import index, write_rows

Run = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[str]"]


def pixels(path: Path | str) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def test_rows_become_the_pipelines_images(batch: Run, pipeline: StableDiffusionPipeline) -> None:
    rows = [
        {"prompt": "a red circle", "seed": 7, "id": "first"},
        {"prompt": "a blue star", "steps": 3, "negative_prompt": "green", "id": 12},
        {"prompt": "a {red|blue} square", "width": 72},
    ]
    result = batch(write_rows(rows), "--seed", "100")
    assert (result.exit_code, result.stdout) == (0, "out/index.parquet\n"), result.stderr
    found = index()
    assert [(one["row"], one["id"], one["seed"]) for one in found] == [
        (0, "first", 7),
        (1, "12", 101),
        (2, None, 102),
    ]
    assert found[2]["prompt"] in ("a red square", "a blue square")
    for row, one in zip(rows, found, strict=True):
        image = pipeline(
            one["prompt"],
            seed=one["seed"],
            num_inference_steps=row.get("steps", 2),
            negative_prompt=row.get("negative_prompt"),
            width=row.get("width"),
        ).images[0]
        path = Path("out", one["file"])
        assert one["file"] == f"{one['row']:06}-{one['seed']}.png"
        assert pixels(path) == image.tobytes()
        assert (one["width"], one["height"]) == image.size
        assert one["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert read_metadata(path).settings["Seed"] == str(one["seed"])
        assert (one["error"], one["seconds"] > 0) == (None, True)
    assert found[1]["settings"]["num_inference_steps"] == 3


def test_the_table_says_what_the_lines_say(batch: Run) -> None:
    assert batch(write_rows([{"prompt": "a", "seed": 2**64 - 1}, {"prompt": "b", "steps": 0}])).exit_code == 1
    table = pq.read_table("out/index.parquet").to_pylist()
    assert table == [one | {"settings": json.dumps(one["settings"])} for one in index()]
    assert table[0]["seed"] == 2**64 - 1


def test_a_list_of_prompts(batch: Run) -> None:
    Path("in.txt").write_text('# shapes\na red circle\n\n{"prompt": "a star", "seed": 5}\n{a|b} ring\n')
    assert batch("in.txt").exit_code == 0
    assert [(one["prompt"], one["seed"]) for one in index()][:2] == [("a red circle", 0), ("a star", 5)]
    assert index()[2]["prompt"] in ("a ring", "b ring")


def test_a_table_of_prompts_with_images(batch: Run, pipeline: StableDiffusionPipeline) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(stream, "PNG")
    columns = {
        "prompt": ["a", "b", "c"],
        # As pandas stores whole numbers beside empty cells.
        "seed": pa.array([3.0, None, 5.0]),
        "image": [None, {"bytes": stream.getvalue(), "path": None}, None],
        "strength": [None, 0.5, None],
    }
    pq.write_table(pa.table(columns), "in.parquet")
    result = batch("in.parquet")
    assert result.exit_code == 0, result.stderr
    assert [one["seed"] for one in index()] == [3, 1, 5]
    expected = pipeline("b", seed=1, image=stream.getvalue(), strength=0.5, num_inference_steps=2).images[0]
    assert pixels("out/000001-1.png") == expected.tobytes()


BAD = {
    "no JSON": ("{", "not valid JSON"),
    "no object": ("3", "expected a JSON object"),
    "deep": ("[" * 100_000, "not valid JSON"),
    "no prompt": ('{"seed": 3}', "expected a prompt"),
    "unknown": ('{"prompt": "x", "stepz": 3}', "unknown setting 'stepz' (did you mean steps?)"),
    "twice": ('{"prompt": "x", "seed": 3, "seed": 4}', "seed is given twice"),
    "type": ('{"prompt": "x", "seed": "three"}', "seed is 'three': expected a whole number"),
    "bound": ('{"prompt": "x", "steps": 0}', "num_inference_steps is 0"),
    "NaN": ('{"prompt": "x", "guidance_scale": NaN}', "guidance_scale is nan"),
    "seed": ('{"prompt": "x", "seed": 18446744073709551616}', "seed is 18446744073709551616"),
    "no file": ('{"prompt": "x", "image": "nothing.png"}', "image nothing.png cannot be read"),
    "no image": ('{"prompt": "x", "image": "in.jsonl"}', "image"),
    "a NUL": ('{"prompt": "x", "image": "a\\u0000b"}', "cannot be read"),
    "id": ('{"prompt": "x", "id": [1]}', "id is [1]: expected a text or a whole number"),
    "wildcard": ('{"prompt": "a __nothing__"}', "__nothing__"),
    "model's": ('{"prompt": "x", "width": 63}', "width is 63"),
    "lora": ('{"prompt": "x", "lora": "nothing.safetensors"}', "nothing"),
}


@pytest.mark.full
def test_bad_rows_have_their_errors_and_the_others_go_on(batch: Run) -> None:
    lines = [line for line, _ in BAD.values()]
    result = batch(write_rows(["\ufeff" + '{"prompt": "first"}', *lines, {"prompt": "last"}]))
    assert result.exit_code == 1
    assert f"{len(BAD)} of {len(BAD) + 2} rows failed" in result.stderr
    first, *bad, last = index()
    assert (first["error"], last["error"]) == (None, None)
    for (name, (_, message)), entry in zip(BAD.items(), bad, strict=True):
        assert message in entry["error"], name
        assert entry["file"] is None
    assert len(list(Path("out").glob("*.png"))) == 2
    # Only what failed is tried again.
    assert json.loads(batch("in.jsonl", "--json").stdout) == {
        **{"index": "out/index.parquet", "rows": len(BAD) + 2},
        **{"there": 2, "made": 0, "failed": len(BAD)},
    }


def test_a_line_that_is_no_text(batch: Run) -> None:
    Path("in.jsonl").write_bytes(b'{"prompt": "a"}\n{"prompt": "\xff"}\n')
    assert batch("in.jsonl").exit_code == 1
    assert "line 2 is not UTF-8 text" in index()[1]["error"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.csv", b"a", "expected one of .jsonl, .ndjson, .parquet, .txt"),
        ("in.jsonl", b"\n", "has no rows"),
        ("in.jsonl", None, "cannot be read"),
        ("in.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_an_input_that_cannot_be_read(batch: Run, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    result = batch(name)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("out").exists()


def test_a_column_that_is_no_setting(batch: Run) -> None:
    pq.write_table(pa.table({"prompt": ["a"], "caption": ["b"]}), "in.parquet")
    result = batch("in.parquet")
    assert result.exit_code == 2
    assert "'caption' is no setting" in result.stderr


@pytest.mark.full
def test_again_makes_only_what_is_missing_damaged_or_changed(batch: Run) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"a {number}"} for number in range(5)]
    batch(write_rows(rows))
    before = index()
    times = [Path("out", one["file"]).stat().st_mtime_ns for one in before]
    damaged, missing, linked = (Path("out", before[row]["file"]) for row in (1, 2, 3))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    missing.unlink()
    content = linked.read_bytes()
    linked.unlink()
    Path("elsewhere.png").write_bytes(content)
    linked.symlink_to(Path("elsewhere.png").absolute())
    rows[4]["prompt"] = "another"
    result = batch(write_rows(rows), "--json")
    assert json.loads(result.stdout)["made"] == 4
    assert [one["sha256"] for one in index()[:4]] == [one["sha256"] for one in before[:4]]
    assert (index()[4]["prompt"], index()[4]["key"] != before[4]["key"]) == ("another", True)
    assert Path("out", before[0]["file"]).stat().st_mtime_ns == times[0]
    assert not linked.is_symlink()
    # The place of a row counts, and rows that are gone are forgotten.
    result = batch(write_rows(rows[:2]))
    assert "3 rows of the index are no longer in the input" in result.stderr
    assert len(index()) == 2


@pytest.mark.full
def test_another_model_makes_all_anew(batch: Run, model_copy: Path) -> None:
    write_rows([{"prompt": "a"}])
    assert batch("in.jsonl", "-m", model_copy).exit_code == 0
    assert json.loads(batch("in.jsonl", "-m", model_copy, "--json").stdout)["there"] == 1
    config = model_copy / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + " ")
    assert json.loads(batch("in.jsonl", "-m", model_copy, "--json").stdout)["made"] == 1


def lines() -> int:
    with contextlib.suppress(OSError):
        return len(Path("out/index.jsonl").read_bytes().splitlines())
    return 0


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert condition(), process.communicate() if process.poll() is not None else "too slow"


SLOW = [{"prompt": f"a {number}", "steps": 30} for number in range(12)]


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children()
    return [one for one in found if "spawn_main" in " ".join(one.cmdline())]


@pytest.mark.full
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_goes_on(batch: Run, started: Start, sent: signal.Signals) -> None:
    process = started(write_rows(SLOW))
    wait_for(lambda: lines() >= 3, process)
    workers = workers_of(process)
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    expected = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}
    assert process.returncode == expected[sent], said
    psutil.wait_procs(workers, timeout=10)
    assert not [one for one in workers if one.is_running()]
    entries = index()
    assert 3 <= len(entries) < len(SLOW)
    assert {path.name for path in Path("out").glob("*.png")} >= {one["file"] for one in entries}
    if sent != signal.SIGKILL:
        assert len(pq.read_table("out/index.parquet")) == len(entries)
        assert not list(Path("out").glob(".*.part"))
        assert "are made and in the index" in said
    result = json.loads(batch("in.jsonl", "--json").stdout)
    assert (result["there"], result["made"]) == (len(entries), len(SLOW) - len(entries))
    resumed = [one["sha256"] for one in index()]
    batch("in.jsonl", "-o", "whole")
    assert resumed == [one["sha256"] for one in index("whole")]


@pytest.mark.full
def test_a_line_that_a_killed_run_left_unfinished(batch: Run) -> None:
    batch(write_rows([{"prompt": "a"}, {"prompt": "b"}]))
    path = Path("out/index.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    result = json.loads(batch("in.jsonl", "--json").stdout)
    assert (result["there"], result["made"]) == (1, 1)
    assert len(index()) == 2


@pytest.mark.full
def test_workers_that_are_killed_lose_nothing(started: Start) -> None:
    process = started(write_rows(SLOW), "--workers", "2")
    for count in (1, 4):
        wait_for(lambda count=count: lines() >= count, process)  # type: ignore[misc]
        workers_of(process)[0].kill()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert [one["error"] for one in sorted(index(), key=lambda one: one["row"])] == [None] * len(SLOW)


@pytest.mark.full
def test_a_full_disk_is_told_and_the_run_goes_on_later(batch: Run, started: Start) -> None:
    write_rows([{"prompt": f"a {number}", "width": 64 + 64 * (number == 3)} for number in range(5)])
    batch("in.jsonl", "-o", "whole")
    sizes = [Path("whole", one["file"]).stat().st_size for one in index("whole")]
    limit = max(sizes[:3]) + 100
    assert sizes[3] > limit
    process = started("in.jsonl", before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot be written: File too large" in said
    assert not list(Path("out").glob(".*.part"))
    before = len(index())
    assert 0 < before <= 3
    result = json.loads(batch("in.jsonl", "--json").stdout)
    assert (result["there"], result["made"]) == (before, 5 - before)
    assert [one["sha256"] for one in index()] == [one["sha256"] for one in index("whole")]


def test_ids_and_prompts_name_no_files(batch: Run, folder: Path) -> None:
    hostile = "../../../evil\x00\n\x1b[31m"
    result = batch(write_rows([{"prompt": hostile, "id": hostile}, {"prompt": "é" * 300, "id": "é" * 300}]))
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in Path("out").glob("*.png")) == ["000000-0.png", "000001-1.png"]
    assert [one["id"] for one in index()] == [hostile, "é" * 300]
    assert {path.name for path in folder.parent.iterdir()} <= {"work", "cache", "hub"}
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize(
    "pattern",
    *[
        [
            "{seed}.png",
            "../{row}.png",
            "{row}/a.png",
            "{row!r}.png",
            "{row.real}.png",
            "{row",
            ".{row}.png",
            "{row:9}x",
        ]
    ],
)
def test_patterns_that_are_refused(batch: Run, pattern: str) -> None:
    result = batch(write_rows([{"prompt": "a"}]), "--name", pattern)
    assert result.exit_code == 2
    assert not Path("out").exists()


def test_two_rows_have_no_common_name(batch: Run) -> None:
    rows = [{"prompt": "a", "seed": seed} for seed in (0, 11, *range(2, 11), 1)]
    result = batch(write_rows(rows), "--name", "{row}{seed}.png")
    assert result.exit_code == 2
    assert "rows 1 and 11 are both 111.png" in result.stderr
    assert not Path("out").exists()


def test_a_damaged_index_is_made_anew(batch: Run) -> None:
    write_rows([{"prompt": "a"}])
    assert batch("in.jsonl").exit_code == 0
    (good,) = index()
    wrong = [{"row": [1]}, {"row": "x"}, {"row": None}, {"seed": "x"}, {"seed": -1}, {"settings": 5}]
    lines = [json.dumps(good | one) for one in wrong]
    Path("out/index.jsonl").write_text("".join(f"{one}\n" for one in ["[" * 100_000, *lines]))
    result = batch("in.jsonl")
    assert result.exit_code == 0, result.stderr
    assert [one | {"seconds": 0} for one in index()] == [good | {"seconds": 0}]


def test_half_a_character_in_an_id_is_kept(batch: Run) -> None:
    result = batch(write_rows(['{"prompt": "a", "id": "\\ud800"}']))
    assert result.exit_code == 0, result.stderr
    assert index()[0]["id"] == "\ud800"
    assert pq.read_table("out/index.parquet").to_pylist()[0]["id"] == "\\ud800"


def test_an_image_that_may_have_no_end_is_refused(batch: Run) -> None:
    assert batch(write_rows([{"prompt": "a", "image": "/dev/null"}])).exit_code == 1
    assert "/dev/null cannot be read (it is no file of at most 1024 MB)" in index()[0]["error"]


def test_a_table_whose_texts_are_no_text(batch: Run) -> None:
    prompts = pa.array([b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": prompts}), "in.parquet")
    result = batch("in.parquet")
    assert result.exit_code == 2
    assert "in.parquet cannot be read: 'utf-8' codec" in result.stderr


def test_standard_input_that_is_closed(started: Start) -> None:
    process = started("-", before=lambda: os.close(0))
    assert "standard input is closed" in process.communicate()[1]
    assert process.returncode == 2


def test_names_formats_and_metadata(batch: Run) -> None:
    write_rows([{"prompt": "a"}, {"prompt": "b"}])
    assert batch("in.jsonl", "--name", "x{row}.jpg", "--no-metadata").exit_code == 0
    with Image.open("out/x1.jpg") as image:
        assert (image.format, read_metadata("out/x1.jpg").text) == ("JPEG", "")
    # Another name is another file.
    assert json.loads(batch("in.jsonl", "--name", "x{row}.png", "--json").stdout)["made"] == 2


def test_other_files_are_not_overwritten(batch: Run) -> None:
    Path("out").mkdir()
    Path("out/000001-1.png").write_text("mine")
    result = batch(write_rows([{"prompt": "a"}, {"prompt": "b"}]))
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert Path("out/000001-1.png").read_text() == "mine"
    assert batch("in.jsonl", "--force").exit_code == 0
    assert len(index()) == 2


def test_a_folder_that_another_batch_writes_into(batch: Run) -> None:
    Path("out").mkdir()
    with FileLock("out/.sdrt-batch.lock"):
        result = batch(write_rows([{"prompt": "a"}]))
    assert result.exit_code == 2
    assert "another sdrt batch writes into out" in result.stderr


@pytest.mark.full
def test_rows_share_runs(batch: Run) -> None:
    rows = [{"prompt": f"a {number}"} for number in range(3)] + [{"prompt": "c", "steps": 3}]
    result = batch(write_rows(rows), "--batch-size", "2")
    assert result.exit_code == 0, result.stderr
    found = index()
    assert found[0]["seconds"] == found[1]["seconds"] != found[2]["seconds"]
    assert [read_metadata(Path("out", one["file"])).prompt for one in found] == ["a 0", "a 1", "a 2", "c"]


@pytest.mark.full
def test_without_pyarrow_the_index_has_lines(batch: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = batch(write_rows([{"prompt": "a"}]))
    assert (result.exit_code, result.stdout) == (0, "out/index.jsonl\n")
    assert "no index.parquet, which needs pyarrow: pip install" in result.stderr
    Path("in.parquet").write_bytes(b"")
    result = batch("in.parquet")
    assert result.exit_code == 4
    assert "[batch]" in result.stderr


def test_without_ray(batch: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = batch(write_rows([{"prompt": "a"}]), "--ray", "local")
    assert result.exit_code == 4
    assert "needs ray, which is not installed: pip install" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["-m", "nothing"], 3, "nothing"),
        (["--seed", "-1"], 2, "--seed is -1"),
        (["--gpus-per-worker", "1"], 2, "--gpus-per-worker has no effect without --ray"),
        (["--provider", "none"], 4, "none"),
        (["--workers", "0"], 2, "--workers"),
    ],
)
def test_what_is_told_at_once(batch: Run, words: Sequence[str], code: int, message: str) -> None:
    result = batch(write_rows([{"prompt": "a"}]), *words)
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    assert not Path("out").exists()


class Breaking:
    """A place where one row ends its worker each time, alone or with others."""

    def __enter__(self) -> Breaking:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def answers(self, groups: Sequence[Group]) -> Iterator[tuple[Group, Answer]]:
        for group in groups:
            if any(row.number == 1 for row, _ in group.rows):
                yield group, Lost("by signal 11")
            else:
                image = MadeImage(data=b"image", seed=0, width=1, height=1, text="")
                yield group, [Made(images=(image,), settings={}, seconds=1.0)] * len(group.rows)


class Silent:
    def begin(self, rows: int, there: int) -> None:
        pass

    def done(self, *, made: bool) -> None:
        pass

    def notice(self, text: str) -> None:
        pass


def test_a_row_that_ends_its_worker_each_time(folder: Path) -> None:
    rows = [Row(number=number, settings={"prompt": "a", "seed": number}) for number in range(4)]
    made = Batch(
        rows=rows,
        folder=Path("out"),
        pattern="{row}.png",
        file_format=FileFormat(),
        model="m",
        batch_size=4,
        report=Silent(),
    )
    summary = made.run(Breaking())
    assert (summary.rows, summary.made, summary.failed) == (4, 3, 1)
    assert index()[1]["error"] == "its worker ended by signal 11, 2 times: memory may have run out"
