"""`ulimit -v`: exit code 5 wherever memory runs out, one line that says what helps, and what fits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("other systems do not enforce it", allow_module_level=True)

import resource

pytestmark = pytest.mark.usefixtures("folder")
COMMAND = [sys.executable, "-m", "sdrt"]
MB = 1 << 20


def limited(megabytes: int, kind: int = resource.RLIMIT_AS) -> Callable[[], None]:
    """For `preexec_fn`."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(kind, (megabytes * MB, megabytes * MB))

    return limit


def run(
    megabytes: int, *arguments: str, command: list[str] = COMMAND, **options: Any
) -> tuple[int, str, str]:
    done = subprocess.run(
        [*command, *arguments],
        preexec_fn=limited(megabytes, **options),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("options", [(), ("--low-vram",), ("--no-low-vram", "-b", "2")], ids=str)
@pytest.mark.parametrize("megabytes", [40, 70, 100, 130, 160, 200, 240, 280, 320, 360])
def test_there_is_an_image_or_exit_code_5(
    model: str, folder: Path, megabytes: int, options: tuple[str, ...]
) -> None:
    """Whichever library notices: Python, OpenBLAS, the loader, ONNX Runtime, or C++ in a thread of its own."""
    arguments = ("generate", "x", "-m", model, "--steps", "2", "-s", "0", "-o", "a.png", *options)
    code, _, errors = run(megabytes, *arguments)
    assert code in (0, 5), errors
    made = list(folder.iterdir())
    if code == 0:
        assert made
        return
    assert made == []
    line = errors.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert f"the limit of {megabytes * MB / 1e6:.0f} MB (ulimit -v)" in line
    assert "Traceback" not in errors
    assert ("low_vram (--low-vram)" in line) <= ("--low-vram" not in options)
    assert ("fewer images" in line) <= ("-b" in options)


def test_the_embedded_model_fits_into_400_mb(folder: Path) -> None:
    """Without one heap for all threads it took 550 MB, and sometimes less."""
    assert run(400, "generate", "a red circle", "--steps", "1", "-o", "a.png", "--no-low-vram")[0] == 0


# Endings of a library's own, under a command that does nothing else.
ENDINGS = {
    "os.abort()": 5,
    "os.kill(os.getpid(), 11)": 5,
    "__import__('ctypes').CDLL(None).exit(1)": 5,
    "sys.exit(3)": 3,
    "sys.exit(0)": 0,
    "raise MemoryError": 5,
    "raise OSError(12, 'Cannot allocate memory')": 5,
    "raise ImportError('libX.so: failed to map segment from shared object')": 5,
    'raise RuntimeError("can\'t start new thread")': 5,
    "raise KeyError": 1,
    "os.kill(os.getpid(), 9)": -9,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_how_the_command_ended_is_told(ending: str) -> None:
    code = (
        "import os, sys\n"
        "from sdrt.cli.generate import runner\n"
        "from sdrt.__main__ import main\n"
        "def run(options):\n"
        f"    {ending}\n"
        "runner.run = run\n"
        "main()\n"
    )
    found, _, errors = run(1000, "generate", "x", command=[sys.executable, "-c", code])
    assert found == ENDINGS[ending], errors
    if found == 5:
        assert errors.strip().splitlines()[-1].startswith("error: out of memory")
        assert "raise the limit of 1049 MB (ulimit -v)" in errors


def test_a_limit_on_data_counts_too(model: str) -> None:
    code, _, errors = run(80, "generate", "x", "-m", model, "-o", "a.png", kind=resource.RLIMIT_DATA)
    assert (code, "raise the limit of 84 MB (ulimit -d)" in errors) == (5, True)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("group", [True, False])
def test_signals_reach_the_command(model: str, folder: Path, sent: int, code: int, group: bool) -> None:
    """A terminal sends Ctrl-C to both processes, a service manager only to the one that it started."""
    arguments = ("generate", "x", "-m", model, "--steps", "900", "--count", "50", "-b", "50")
    with subprocess.Popen(
        [*COMMAND, *arguments],
        preexec_fn=limited(4000),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        while "step " not in process.stderr.readline():
            assert process.poll() is None
        (os.killpg if group else os.kill)(process.pid, sent)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in errors) == (code, False)
    assert not list(folder.iterdir())


def test_the_command_ends_with_the_process_that_watches_it(model: str) -> None:
    arguments = ("generate", "x", "-m", model, "--steps", "900", "--count", "50", "-b", "50")
    with subprocess.Popen(
        [*COMMAND, *arguments], preexec_fn=limited(4000), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while "step " not in process.stderr.readline():
            assert process.poll() is None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        assert process.stderr.read() is not None  # until all who can write have ended
    assert len(children) == 1
    for _ in range(100):
        if not Path("/proc", children[0]).exists():
            return
        time.sleep(0.1)
    pytest.fail("it still runs")


@pytest.mark.full
@pytest.mark.parametrize("megabytes", [120, 160, 200, 260, 320])
def test_doctor_says_that_nothing_fits_or_what_does(model: str, megabytes: int) -> None:
    code, out, errors = run(megabytes, "doctor", "-m", model)
    assert code in (0, 5), errors
    told = out + errors
    assert re.search(rf"the limit of {megabytes * MB / 1e6:.0f} MB \(ulimit -v\)", told)
    if code:
        assert "raise the limit" in told
        return
    assert re.search(r"memory: 64x64, batch 1, on cpu: (about \d+ MB, and|the model does not fit)", out)
    assert "ok     generation" in out


@pytest.mark.full
def test_doctor_measures_what_counts_against_the_limit(model: str) -> None:
    code, out, _ = run(3000, "doctor", "-m", model, "--size", "64,4096")
    assert code == 0
    small, large = re.findall(
        r"memory: \S+, batch 1, on cpu: about ([\d.]+ [MG]B), and the limit of 3146 MB", out
    )
    # More than a process takes, because libraries reserve memory too.
    assert 150 < float(small.split()[0]) < 800
    assert large.endswith("GB")
    assert re.search(r"\d+x\d+ fits; --low-vram takes about", out)
