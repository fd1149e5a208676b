"""Providers that do one thing at a time on a device. The CPU takes the place of such a device."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt.common.cancelling import cancelling
from sdrt.common.notices import Notices
from sdrt.errors import RunCancelledError
from sdrt.onnx import session
from sdrt.onnx.providers import PROVIDERS, SessionConfig
from sdrt.onnx.session import Component


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> threading.RLock:
    monkeypatch.setitem(PROVIDERS, "cpu", replace(PROVIDERS["cpu"], one_at_a_time=True))  # type: ignore[arg-type]
    found = session._lock_of_device(SessionConfig(provider="cpu"))
    assert found is not None
    return found


def opened(model: Path) -> Component:
    path = model / "text_encoder" / "model.onnx"
    config = SessionConfig(provider="cpu", tune=False)
    return Component("text_encoder", path, config, Notices(lambda _: None))


def encode(component: Component) -> Any:
    ids = np.zeros((1, 77), component.inputs["input_ids"].dtype)
    with component.bound({"input_ids": ids.shape}, ("last_hidden_state",)) as run:
        run.set("input_ids", ids)
        return run()["last_hidden_state"].copy()


def test_webgpu_is_such_a_provider_and_others_are_not() -> None:
    one, other = (session._lock_of_device(SessionConfig(provider=name)) for name in ("webgpu", "webgpu:0"))
    assert one is not None
    assert one is other
    assert session._lock_of_device(SessionConfig(provider="webgpu:1")) is not one
    assert session._lock_of_device(SessionConfig(provider="cpu")) is None


def test_a_run_waits_for_the_device(tiny_model: Path, lock: threading.RLock) -> None:
    component, done = opened(tiny_model), threading.Event()
    wanted = encode(component)
    made: list[Any] = []

    def work() -> None:
        made.append(encode(component))
        done.set()

    with lock:
        thread = threading.Thread(target=work)
        thread.start()
        assert not done.wait(0.3)
    thread.join(30)
    np.testing.assert_array_equal(made[0], wanted)


def test_opening_waits_for_the_device(tiny_model: Path, lock: threading.RLock) -> None:
    done = threading.Event()

    def work() -> None:
        opened(tiny_model)
        done.set()

    with lock:
        thread = threading.Thread(target=work)
        thread.start()
        assert not done.wait(0.5)
    assert done.wait(30)
    thread.join(30)


def test_a_cancelled_run_does_not_wait(tiny_model: Path, lock: threading.RLock) -> None:
    component, ended = opened(tiny_model), threading.Event()
    cancelled = threading.Event()

    def work() -> None:
        with pytest.raises(RunCancelledError), cancelling(cancelled.is_set):
            encode(component)
        ended.set()

    with lock:
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.1)
        cancelled.set()
        assert ended.wait(5)
    thread.join(30)


def test_what_is_let_go_of_is_freed_once_the_device_is_free(tiny_model: Path, lock: threading.RLock) -> None:
    kept, dropped = opened(tiny_model), [opened(tiny_model)]
    encode(dropped[0])
    with lock:
        thread = threading.Thread(target=dropped.clear)
        thread.start()
        thread.join(30)
        gc.collect()
        # The thread did not wait, and did not free it.
        assert len(session._dropped[id(lock)]) == 1
    encode(kept)
    assert not session._dropped[id(lock)]


def test_where_the_device_is_free_it_is_freed_at_once(tiny_model: Path, lock: threading.RLock) -> None:
    component = opened(tiny_model)
    del component
    gc.collect()
    assert not session._dropped[id(lock)]
