"""The denoiser loads while the text encoder works: what a caller sees of it, also where it fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import IntegrityError, RunCancelledError, SdrtWarning, StableDiffusionPipeline
from sdrt.common.notices import Notices
from sdrt.onnx.session import Component
from sdrt.run.ahead import Ahead
from sdrt.run.job import encode
from tests.runtime.fast_calls import images

UNET, TEXT = "unet", "text_encoder"


class Loads:
    """The components that were loaded, and in which thread. The U-Net may have to wait for `go_on`."""

    def __init__(self) -> None:
        self.threads: dict[str, list[int]] = {}
        self.began, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def see(self, name: str) -> None:
        self.threads.setdefault(name, []).append(threading.get_ident())
        if name == UNET:
            self.began.set()
            assert self.go_on.wait(60)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loads]:
    found, create = Loads(), Component.__init__

    def watched(self: Component, name: str, *rest: Any, **options: Any) -> None:
        found.see(name)
        create(self, name, *rest, **options)

    monkeypatch.setattr(Component, "__init__", watched)
    yield found
    found.go_on.set()


def fresh(folder: Path, **options: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        folder, provider="cpu", threads=1, verify=False, notify=lambda message: None, **options
    )


def test_the_unet_loads_beside_the_text_encoder(tiny_model: Path, loads: Loads) -> None:
    pipeline = fresh(tiny_model)
    first = images(pipeline)
    np.testing.assert_array_equal(images(pipeline), first)
    here = threading.get_ident()
    assert loads.threads[TEXT] == [here]
    (elsewhere,) = loads.threads[UNET]
    assert elsewhere != here


@pytest.mark.parametrize("option", ["low_vram", "tune"])
def test_nothing_loads_beside_another_component(
    tiny_model: Path, loads: Loads, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDRT_CACHE", str(tmp_path))
    images(fresh(tiny_model, **{option: True}))
    assert {one for every in loads.threads.values() for one in every} == {threading.get_ident()}


def test_a_cancelled_call_does_not_wait_and_the_next_one_takes_what_it_began(
    tiny_model: Path, loads: Loads
) -> None:
    pipeline, cancel = fresh(tiny_model), threading.Event()
    loads.go_on.clear()
    threading.Thread(target=lambda: loads.began.wait(60) and cancel.set()).start()
    with pytest.raises(RunCancelledError):
        images(pipeline, cancel=cancel)
    assert not loads.go_on.is_set()
    loads.go_on.set()
    assert np.isfinite(images(pipeline)).all()
    assert len(loads.threads[UNET]) == 1


def test_a_damaged_unet_is_told_once_by_the_call(model_copy: Path, loads: Loads) -> None:
    graph = model_copy / UNET / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2])
    told: list[str] = []
    pipeline = StableDiffusionPipeline.from_pretrained(
        model_copy, provider="cpu", threads=1, verify=False, notify=told.append
    )
    with pytest.raises(IntegrityError, match="unet"):
        images(pipeline)
    assert not told
    graph.write_bytes(whole)
    assert np.isfinite(images(pipeline)).all()


def test_closing_gives_up_what_is_loading(tiny_model: Path, loads: Loads) -> None:
    pipeline, cancel = fresh(tiny_model), threading.Event()
    loads.go_on.clear()
    threading.Thread(target=lambda: loads.began.wait(60) and cancel.set()).start()
    with pytest.raises(RunCancelledError):
        images(pipeline, cancel=cancel)
    threading.Timer(0.1, loads.go_on.set).start()
    pipeline.close()
    assert pipeline.graphs == ()
    assert not [one for one in threading.enumerate() if one.name == "sdrt-ahead" and one.is_alive()]
    assert np.isfinite(images(pipeline)).all()


def test_a_failure_leaves_the_work_to_the_caller() -> None:
    def fail() -> None:
        raise ValueError("a damaged file")

    assert Ahead(fail).result() is None
    assert Ahead(lambda: 5).result() == 5


def test_a_run_and_the_calls_after_a_change_of_ip_adapters_share_what_is_loading(
    tiny_model: Path, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, encoded, go_on = fresh(tiny_model), threading.Event(), threading.Event()

    def waiting(job: Any) -> Any:
        made = encode(job)
        encoded.set()
        assert go_on.wait(60)
        return made

    monkeypatch.setattr("sdrt.run.turns.encode", waiting)
    loads.go_on.clear()
    made: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: made.append(images(pipeline)))
    thread.start()
    assert encoded.wait(60)
    pipeline.unload_ip_adapter()
    loads.go_on.set()
    go_on.set()
    thread.join()
    np.testing.assert_array_equal(images(pipeline), made[0])
    assert len(loads.threads[UNET]) == 1


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first load of the U-Net warns, as one does that removes a damaged tuned graph."""
    create, messages = Component.__init__, ["the U-Net is slow"]

    def warning(
        self: Component, name: str, path: Path, config: Any, notices: Notices, *rest: Any, **options: Any
    ) -> None:
        create(self, name, path, config, notices, *rest, **options)
        if name == UNET and messages:
            notices.warn(messages.pop())

    monkeypatch.setattr(Component, "__init__", warning)


def call(model: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(model, provider="cpu", verify=False)
    pipeline("a cat", num_inference_steps=1)


@pytest.mark.usefixtures("warned")
def test_a_warning_names_the_line_of_the_call(tiny_model: Path) -> None:
    with pytest.warns(SdrtWarning, match="the U-Net is slow") as found:
        call(tiny_model)
    line = call.__code__.co_firstlineno + 2
    assert [(one.filename, one.lineno) for one in found] == [(__file__, line)]


@pytest.mark.usefixtures("warned")
def test_a_warning_that_is_an_error_ends_the_call(tiny_model: Path) -> None:
    with pytest.raises(SdrtWarning, match="the U-Net is slow"):  # as all warnings in these tests
        call(tiny_model)


@pytest.mark.usefixtures("warned")
def test_messages_come_in_the_thread_of_the_call(tiny_model: Path) -> None:
    threads: list[int] = []
    images(
        StableDiffusionPipeline.from_pretrained(
            tiny_model, provider="cpu", verify=False, notify=lambda _: threads.append(threading.get_ident())
        )
    )
    assert threads == [threading.get_ident()]


FORKED = """
import os, signal, threading
from sdrt.run.ahead import Ahead
from sdrt.run.job import encode
go_on = threading.Event()
ahead = Ahead(go_on.wait)
child = os.fork()
if not child:
    signal.alarm(20)
    os._exit(0 if ahead.result() is None else 1)
status = os.waitpid(child, 0)[1]
go_on.set()
assert ahead.result()
assert not status, f"the child ended with {status}"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_does_not_wait_for_a_thread_that_it_has_not() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to every process of a console")
def test_after_ctrl_c_the_next_call_takes_what_the_interrupted_one_began() -> None:
    go_on = threading.Event()
    ahead = Ahead(lambda: go_on.wait(60))

    def interrupted() -> None:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        ahead.result()

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    go_on.set()
    assert ahead.result() is True
