"""The end of a program whose daemon threads draw: no abort, no traceback, and the program's own exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
import os, sys, threading, time
from sdrt import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained(
    sys.argv[1], provider="cpu", verify=False, low_vram=sys.argv[2] == "low_vram", notify=lambda text: None
)
began = threading.Semaphore(0)

def draw():
    size = {"width": 256, "height": 256}
    while True:
        for event in pipeline.stream(Request(prompt="word " * 300, num_inference_steps=2, **size)):
            began.release()

def daemons(count):
    for _ in range(count):
        threading.Thread(target=draw, daemon=True).start()
    for _ in range(count):
        began.acquire()

from sdrt import Request
"""
ENDS = {
    "sys.exit(3)": (3, ""),
    "raise KeyError('mine')": (1, "KeyError: 'mine'"),
    "pass": (0, ""),
    "print('printed', flush=True); raise SystemExit('told')": (1, "told"),
}


def ends(body: str, model: Path, *, low_vram: bool = False) -> tuple[int, str, str]:
    code = [sys.executable, "-c", HEAD + body, str(model), "low_vram" if low_vram else "usual"]
    done = subprocess.run(code, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("low_vram", [False, True])
def test_the_exit_code_is_the_program_s(tiny_model: Path, end: str, low_vram: bool) -> None:
    """With plain ONNX Runtime, such a program ends with SIGABRT."""
    code, _, errors = ends(f"daemons(3)\ntime.sleep(0.1)\n{end}", tiny_model, low_vram=low_vram)
    expected, text = ENDS[end]
    assert (code, errors.strip().splitlines()[-1:]) == (expected, [text] if text else [])
    assert "Exception in thread" not in errors


@pytest.mark.full
def test_at_any_moment(tiny_model: Path) -> None:
    """Also while sessions are made, and in the text encoder."""
    for delay in (0, 0.02, 0.05, 0.1, 0.2, 0.3):
        body = f"""
for _ in range(3):
    threading.Thread(target=draw, daemon=True).start()
time.sleep({delay})
sys.exit(3)
"""
        assert ends(body, tiny_model) == (3, "", "")


def test_threads_of_a_pool_finish_their_work(tiny_model: Path) -> None:
    """As Python promises, and whether or not a daemon draws beside them."""
    body = """
from concurrent.futures import ThreadPoolExecutor

def once(index):
    pipeline("a", num_inference_steps=2, width=64, height=64, cancel=threading.Event())
    os.write(1, f"made {index}\\n".encode())  # in one piece, beside other threads

daemons(1)
pool = ThreadPoolExecutor(2)
for index in range(4):
    pool.submit(once, index)
sys.exit(3)
"""
    code, out, errors = ends(body, tiny_model)
    assert (code, errors) == (3, "")
    assert sorted(out.splitlines()) == [f"made {index}" for index in range(4)]


def test_threads_of_the_program_s_own_finish_their_work(tiny_model: Path) -> None:
    body = """
def once():
    for _ in range(2):
        pipeline("a", num_inference_steps=2, width=64, height=64, cancel=threading.Event())
        print("made", flush=True)

pipeline.load()
threading.Thread(target=once).start()
daemons(1)
"""
    assert ends(body, tiny_model) == (0, "made\nmade\n", "")


def test_a_pool_of_daemons(tiny_model: Path) -> None:
    body = """
from multiprocessing.pool import ThreadPool

pool = ThreadPool(2)
pool.apply_async(draw)
pool.apply_async(draw)
began.acquire()
sys.exit(3)
"""
    assert ends(body, tiny_model) == (3, "", "")


@pytest.mark.parametrize("early", [True, False])
def test_the_main_thread_may_draw_at_the_end(tiny_model: Path, early: bool) -> None:
    """What was registered before sdrt was imported runs after sdrt has ended the daemons' runs. They can be joined."""
    begin, late = "import atexit\n", "atexit.register(lambda: last())\n"
    body = f"""
def last():
    for thread in threads if {early} else []:
        thread.join(20)
        print(thread.is_alive())
    print(pipeline("a", num_inference_steps=1, width=64, height=64).images[0].size, flush=True)

{"" if early else late}
threads = [threading.Thread(target=draw, daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
began.acquire()
sys.exit(3)
"""
    program = begin + (late if early else "") + HEAD + body
    code = [sys.executable, "-c", program, str(tiny_model), "usual"]
    done = subprocess.run(code, capture_output=True, text=True, timeout=120, check=False)
    printed = ["False", "False", "(64, 64)"] if early else ["(64, 64)"]
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (3, printed, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_does_not_wait_for_its_parent_s_threads(tiny_model: Path) -> None:
    body = """
import os, warnings
warnings.simplefilter("ignore")
daemons(2)
began_at = time.monotonic()
child = os.fork()
if not child:
    sys.exit(4)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(code, time.monotonic() - began_at < 10, flush=True)
"""
    assert ends(body, tiny_model) == (0, "4 True\n", "")
