"""Ctrl-C, signals and threads while a session runs."""

from __future__ import annotations

import _thread
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdrt.common.interrupt import Worker, interruptible


def test_ctrl_c_cancels_waits_and_raises() -> None:
    started, cancelled = threading.Event(), threading.Event()
    finished: list[bool] = []

    def work() -> None:
        started.set()
        finished.append(cancelled.wait(30))

    def press() -> None:
        started.wait(30)
        _thread.interrupt_main()

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        interruptible(work, cancelled.set)
    presser.join()
    assert finished == [True]


def test_ctrl_c_pressed_again_still_waits_for_the_work() -> None:
    started, pressed = threading.Event(), threading.Event()
    finished: list[bool] = []

    def work() -> None:
        started.set()
        finished.append(pressed.wait(30))

    def press() -> None:
        started.wait(30)
        for _ in range(2):
            _thread.interrupt_main()
            # It is noticed when the main thread wakes, five times a second.
            time.sleep(0.4)
        pressed.set()

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        interruptible(work, lambda: None)
    assert finished == [True]
    presser.join()


def test_a_signal_while_work_is_handed_over_waits_for_it() -> None:
    """Between handing it over and waiting: the work may have begun, and still uses its caller's buffers."""
    told: list[str] = []
    worker = Worker("test")
    plain = worker.submit

    def submit(work: Callable[[], None]) -> None:
        plain(work)
        begun.wait(10)
        raise KeyboardInterrupt

    def work() -> None:
        told.append("began")
        begun.set()
        stopped.wait(10)
        told.append("ended")

    begun, stopped = threading.Event(), threading.Event()
    worker.submit = submit  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        interruptible(work, stopped.set, worker)
    assert told == ["began", "ended"]


def test_work_that_has_not_begun_is_not_waited_for() -> None:
    """The worker is at another caller's."""
    worker, busy = Worker("test"), threading.Event()
    worker.submit(lambda: busy.wait(10) and None)
    done: list[str] = []
    threading.Timer(0.2, _thread.interrupt_main).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interruptible(lambda: done.append("done"), lambda: None, worker)
    assert time.monotonic() - began < 5
    busy.set()
    interruptible(lambda: None, lambda: None, worker)
    assert done == []


def test_a_worker_s_thread_ends_with_it() -> None:
    worker = Worker("test-that-ends")
    thread = next(one for one in threading.enumerate() if one.name == "test-that-ends")
    del worker
    thread.join(10)
    assert not thread.is_alive()


def test_a_thread_of_the_user_s_goes_on_when_the_main_one_has_ended(tiny_model: Path) -> None:
    """On a device each component has a thread of its own, which must take work for as long as anybody has some."""
    code = """
import sys, threading
from dataclasses import replace
from sdrt import StableDiffusionPipeline
from sdrt.onnx.providers import PROVIDERS

PROVIDERS["cpu"] = replace(PROVIDERS["cpu"], device="cpu")
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1], provider="cpu", verify=False).load()
ended = threading.Event()

def generate():
    ended.wait()
    for _ in range(3):
        pipeline("a", num_inference_steps=2, width=64, height=64)
    print("made", flush=True)

threading.Thread(target=generate).start()
threading.Thread(target=lambda: (threading.main_thread().join(), ended.set())).start()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_model)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("made\n", 0), done.stderr


def test_a_failure_in_the_worker_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0, lambda: None)
