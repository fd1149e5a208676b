"""What a process meets outside: signals, streams that are gone or full, encodings, homes that do not exist."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("folder")
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals and devices of POSIX")
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
FAST = ("--steps", "1", "--seed", "0")


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-m", "sdrt", *arguments], text=True, **(streams | options))


def run(*arguments: str, **options: Any) -> tuple[int, str, str]:
    with start(*arguments, **options) as process:
        out, errors = process.communicate()
    return process.returncode, out or "", errors or ""


def environment(**changes: str | None) -> dict[str, str]:
    changed = os.environ | {name: value for name, value in changes.items() if value is not None}
    return {
        name: value for name, value in changed.items() if name not in changes or changes[name] is not None
    }


@POSIX
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_leaves_no_file(
    model: str, folder: Path, sent: signal.Signals, code: int
) -> None:
    with start("generate", "x", "-m", model, "--steps", "900", "--count", "50", "-b", "50") as process:
        assert process.stderr is not None
        while "step " not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(sent)
        _, errors = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in errors
    assert not list(folder.iterdir())


@POSIX
@pytest.mark.parametrize("swallowed", [False, True])
def test_ctrl_c_while_modules_are_read(model: str, swallowed: bool) -> None:
    """Also if Python swallows the exception, as it does in callbacks of the import system."""
    seen = "BaseException" if swallowed else "()"
    code = (
        "import sys, importlib.abc, os, signal\n"
        "class Interrupt(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name != 'click': return\n"
        "        try: os.kill(os.getpid(), signal.SIGINT)\n"
        f"        except {seen}: pass\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from sdrt.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (130, "error: interrupted")


@pytest.mark.parametrize("wrapped", [False, True])
def test_ctrl_c_that_an_import_turned_into_another_error(model: str, wrapped: bool) -> None:
    failure = (
        "raise ImportError('numpy.core failed') from KeyboardInterrupt()"
        if wrapped
        else "raise KeyboardInterrupt"
    )
    code = (
        "import sys, importlib.abc\n"
        "class Interrupt(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == 'onnxruntime': {failure}\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from sdrt.__main__ import main\n"
        "main()\n"
    )
    arguments = ["generate", "x", "-m", model, *FAST]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (130, "error: interrupted")


@needs_full
def test_a_full_stdout_is_an_error_and_the_image_stays(model: str, folder: Path) -> None:
    with FULL.open("w") as full:
        code, _, errors = run("generate", "x", "-m", model, *FAST, "-q", "-o", "a.png", stdout=full)
    assert (code, errors.strip()) == (1, "error: standard output: No space left on device")
    assert [path.name for path in folder.iterdir()] == ["a.png"]


@needs_full
def test_a_stderr_that_nobody_reads_costs_nothing(model: str, folder: Path) -> None:
    with FULL.open("w") as full:
        code, out, _ = run("generate", "x", "-m", model, *FAST, "-o", "a.png", stderr=full)
        wrong = run("generate", "x", "-m", "./none", stderr=full)[0]
    assert (code, out.strip(), wrong) == (0, "a.png", 3)
    assert (folder / "a.png").stat().st_size


@POSIX
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(model: str, folder: Path, closed: str) -> None:
    command = f'"$0" -m sdrt generate x -m "$1" --steps 1 -o a.png {closed}'
    assert subprocess.run(["sh", "-c", command, sys.executable, model], capture_output=True).returncode == 0
    assert (folder / "a.png").stat().st_size


def test_an_encoding_without_the_prompt_s_characters(model: str) -> None:
    latin = environment(PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert run("generate", "ein 🦊", "-m", model, *FAST, "-o", "a.png", env=latin)[0] == 0
    code, out, _ = run("info", "a.png", env=latin)
    assert (code, out.splitlines()[0]) == (0, r"ein \U0001f98a")


@POSIX
def test_without_a_home_it_runs_and_doctor_says_so(model: str) -> None:
    lost = environment(SDRT_CACHE="~nobody-of-that-name/cache")
    assert run("generate", "x", "-m", model, *FAST, "-o", "a.png", env=lost)[0] == 0
    code, out, _ = run("doctor", "-m", model, "--json", env=lost)
    (cache,) = (row for row in json.loads(out)["findings"] if row["name"] == "cache")
    assert (code, cache["status"]) == (0, "warning")
    assert "nobody-of-that-name" in cache["detail"]
    assert "SDRT_CACHE" in cache["remedy"]


def test_nothing_is_left_in_the_home(model: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    clean = environment(HOME=str(home), XDG_CACHE_HOME=None, ORT_DISABLE_TELEMETRY=None)
    assert run("generate", "x", "-m", model, *FAST, "-o", "a.png", env=clean)[0] == 0
    assert not list(home.iterdir())


def test_json_names_the_files_that_were_made_before_a_failure(model: str) -> None:
    # The third name is taken once the first two images are there.
    arguments = ["generate", "x", "-m", model, *FAST, "--count", "3", "-o", "{index}.png", "--json", "-q"]
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from sdrt.cli import main\n"
        "from sdrt.images import files\n"
        "publish = files._publish\n"
        "def late(partial, path, **options):\n"
        "    if path.name == '2.png': path.touch()\n"
        "    publish(partial, path, **options)\n"
        "files._publish = late\n"
        f"main({arguments!r}, prog_name='sdrt')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert done.returncode == 2
    assert "2.png exists already" in done.stderr
    assert (report["files"], report["seeds"]) == (["0.png", "1.png"], [0, 1])
    assert len(report["prompts"]) == 2


def test_a_message_of_any_length_is_one_line_that_can_be_read(model: str) -> None:
    code, _, errors = run("generate", "x", "-m", model, "--scheduler", "euler" * 20_000)
    assert (code, len(errors.splitlines())) == (2, 1)
    assert len(errors) < 3000
    assert errors.startswith("error: unknown scheduler 'eulereuler")


@POSIX
@pytest.mark.parametrize("gap", [0, 0.005, 0.02, 0.05])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("more", [0, 1, 3])
def test_a_signal_that_is_sent_twice(
    model: str, folder: Path, gap: float, sent: signal.Signals, more: int
) -> None:
    """While it is loading, drawing, removing files and ending. People press Ctrl-C until something happens."""
    with start("generate", "x", "-m", model, "--steps", "900", "--count", "50", "-b", "50") as process:
        assert process.stderr is not None
        # It handles signals since it has printed this line. The next ones say how many steps are done.
        while "loading" not in process.stderr.readline():
            assert process.poll() is None
        for _ in range(more):
            assert process.stderr.readline()
        send_four(process, sent, gap)
        _, errors = process.communicate(timeout=60)
    # If the first one interrupts an exec(), Python ends by SIGINT in the end, which shells call 130 too.
    interrupted = sent == signal.SIGINT and process.returncode == -sent and "error: interrupted" in errors
    assert interrupted or process.returncode == 128 + sent, errors
    assert "Traceback" not in errors
    assert errors.count("error: ") <= 1
    assert not list(folder.iterdir())


@POSIX
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_command_handles_any(model: str, folder: Path, sent: signal.Signals) -> None:
    """Python itself may not have begun to handle signals. The process ends all the same."""
    with start("generate", "x", "-m", model, "--steps", "900", "--count", "50", "-b", "50") as process:
        send_four(process, sent, gap=0)
        process.communicate(timeout=60)
    assert process.returncode in (-sent, 1, 128 + sent)
    assert not list(folder.iterdir())


def send_four(process: subprocess.Popen[str], sent: signal.Signals, gap: float) -> None:
    for _ in range(4):
        process.send_signal(sent)
        time.sleep(gap)


@POSIX
def test_a_signal_while_the_process_ends(model: str) -> None:
    """After the command's last line, Python still tidies up."""
    code = (
        "import atexit, os, signal, time\n"
        "@atexit.register\n"
        "def late():\n"
        "    for _ in range(3):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(0.05)\n"
        "from sdrt.__main__ import main\n"
        "main()\n"
    )
    for arguments, expected in ((["--version"], 0), (["generate", "x", "-W", "3"], 2)):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert (done.returncode, "Traceback" in done.stderr) == (expected, False), done.stderr


@POSIX
def test_a_program_that_calls_the_command_keeps_its_handlers() -> None:
    from sdrt.cli import main

    before = signal.getsignal(signal.SIGINT)
    for arguments in (["--version"], ["nonsense"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert signal.getsignal(signal.SIGINT) is before
