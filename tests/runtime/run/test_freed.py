"""A pipeline that is dropped is freed at once, with its sessions, and without Python's garbage collector."""

from __future__ import annotations

import _thread
import gc
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import ComponentError, Request, RunCancelledError, StableDiffusionPipeline

CALL: dict[str, Any] = {"num_inference_steps": 2, "width": 64, "height": 64, "seed": 1}
IMAGE = np.zeros((64, 64, 3), np.uint8)
MASK = np.full((64, 64), 255, np.uint8)
kept: list[object] = []


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Turn the garbage collector off. It would free cycles, but does not know how large a session is."""
    gc.collect()
    gc.disable()
    kept.clear()
    yield
    kept.clear()
    gc.enable()


def text_to_image(pipeline: StableDiffusionPipeline) -> None:
    pipeline("a AND b", **CALL)


def image_to_image(pipeline: StableDiffusionPipeline) -> None:
    pipeline("a", **CALL, image=IMAGE)


def inpainting(pipeline: StableDiffusionPipeline) -> None:
    pipeline("a", **CALL, image=IMAGE, mask_image=MASK)


def outpainting(pipeline: StableDiffusionPipeline) -> None:
    pipeline("a", num_inference_steps=1, image=IMAGE, outpaint="left=64")


def twice(pipeline: StableDiffusionPipeline) -> None:
    pipeline("a", **CALL, hires_scale=2)


def previews(pipeline: StableDiffusionPipeline) -> None:
    for event in pipeline.stream(Request(prompt="a", **CALL)):
        kept.append(event)
        if hasattr(event, "denoised"):
            pipeline.preview(event.denoised)


def another_provider(pipeline: StableDiffusionPipeline) -> None:
    pipeline("a", **CALL)
    pipeline.to("cpu")
    pipeline.close()
    pipeline.warm_up(64, 64)


def failing_callback(pipeline: StableDiffusionPipeline) -> None:
    def fail(*_: object) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        pipeline("a", **CALL, callback_on_step_end=fail)


def failing_run(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(ComponentError, match="not finite"):
        pipeline("a", **CALL, latents=np.full((1, 4, 8, 8), 1e38, np.float32))


def held_error(pipeline: StableDiffusionPipeline) -> None:
    """Notebooks, loggers and futures keep errors. `del` is for this frame, which is the caller's."""
    try:
        pipeline("a", **CALL, latents=np.full((1, 4, 8, 8), 1e38, np.float32))
    except ComponentError as error:
        kept.append(error)
    finally:
        del pipeline


def held_error_of_a_stream(pipeline: StableDiffusionPipeline) -> None:
    latents = np.full((1, 4, 8, 8), 1e38, np.float32)
    try:
        list(pipeline.stream(Request(prompt="a", **CALL, latents=latents)))
    except ComponentError as error:
        kept.append(error)
    finally:
        del pipeline


def held_error_of_ctrl_c(pipeline: StableDiffusionPipeline) -> None:
    def press(pipeline: object, *_: object) -> None:
        del pipeline
        _thread.interrupt_main()

    try:
        pipeline("a", **CALL | {"num_inference_steps": 900}, callback_on_step_end=press)
    except KeyboardInterrupt as error:
        kept.append(error)
    finally:
        del pipeline


def cancelled(pipeline: StableDiffusionPipeline) -> None:
    cancel = threading.Event()
    try:
        pipeline("a", **CALL, cancel=cancel, callback_on_step_end=lambda *_: cancel.set())
    except RunCancelledError as error:
        kept.append(error)
    finally:
        del pipeline


def closed_stream(pipeline: StableDiffusionPipeline) -> None:
    stream = pipeline.stream(Request(prompt="a", **CALL))
    kept.append(next(stream))
    stream.close()
    kept.append(stream)


def half_a_stream(pipeline: StableDiffusionPipeline) -> None:
    next(pipeline.stream(Request(prompt="a", **CALL)))


USES = (
    *(text_to_image, image_to_image, inpainting, outpainting, twice, previews, another_provider),
    *(failing_callback, failing_run, held_error, held_error_of_a_stream, held_error_of_ctrl_c),
    *(cancelled, closed_stream, half_a_stream),
)


@pytest.mark.parametrize("low_vram", [False, True])
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_a_dropped_pipeline_is_freed(
    tiny_model: Path, use: Callable[[StableDiffusionPipeline], None], low_vram: bool
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(
        tiny_model, low_vram=low_vram, notify=lambda message: None
    )
    pipeline.load()
    watched = [weakref.ref(graph) for graph in pipeline.graphs]
    use(pipeline)
    watched += [weakref.ref(pipeline), *(weakref.ref(graph) for graph in pipeline.graphs)]
    del pipeline
    assert len(watched) > 1
    assert [reference() for reference in watched] == [None] * len(watched)


def test_a_stream_outlives_its_pipeline(tiny_model: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    expected = pipeline("a", **CALL).images[0]
    stream = pipeline.stream(Request(prompt="a", **CALL))
    next(stream)
    graphs = [weakref.ref(graph) for graph in pipeline.graphs]
    del pipeline
    *_, result = stream
    assert result.images[0].tobytes() == expected.tobytes()  # type: ignore[union-attr]
    assert [reference() for reference in graphs] == [None] * len(graphs)


def test_an_error_s_traceback_still_says_where(tiny_model: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    held_error(pipeline)
    (error,) = kept
    assert isinstance(error, ComponentError)
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names[0] == "held_error"
    assert names[-1] == "check_finite"


# The program's own memory, not that of files, after each of twenty pipelines.
PROGRAM = """
import ctypes, gc, statistics
from sdrt import StableDiffusionPipeline
from sdrt.benchmark.memory import own_bytes

gc.disable()
sizes = []
for index in range(20):
    pipeline = StableDiffusionPipeline.from_pretrained("shapes", provider="cpu", threads=1)
    pipeline("a red circle", num_inference_steps=1, seed=0)
    # What the C library keeps for later is no leak. It is up to 40 MB, depending on threads and their turns.
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
    sizes.append(own_bytes("self"))
print(round(statistics.median(sizes[10:]) - statistics.median(sizes[:10])))
"""


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_twenty_pipelines_take_no_more_memory_than_ten() -> None:
    """With a cycle, each one added 70 MB, so the medians differed by 700."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100e6
