"""`cancel`: another thread or a coroutine stops a call, wherever the call is, and nothing else."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import Request, RequestError, RunCancelledError, StableDiffusionPipeline
from sdrt.common.cancelling import cancelling, held
from sdrt.common.interrupt import Worker, interruptible
from sdrt.vae.autoencoder import VaeDecoder

CALL: dict[str, Any] = {"num_inference_steps": 3, "width": 64, "height": 64, "seed": 1, "output_type": "np"}
IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
MASK = np.full((64, 64), 255, np.uint8)
PYTHON = Path(__file__).parents[3] / "docs" / "python.md"


class Countdown:
    """Is set from a number of looks on. Counts them."""

    def __init__(self, looks: int = 10**9) -> None:
        self.left, self.looks = looks, 0

    def is_set(self) -> bool:
        self.looks += 1
        self.left -= 1
        return self.left < 0


@pytest.fixture(scope="module", params=[{}, {"low_vram": True}], ids=["usual", "low_vram"])
def pipeline(request: pytest.FixtureRequest, tiny_model: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        tiny_model, threads=1, verify=False, notify=lambda message: None, **request.param
    )


@pytest.mark.full
@pytest.mark.parametrize(
    "task",
    [
        {"prompt": "a"},
        {"prompt": "word " * 300},
        {"prompt": "a AND b", "num_images_per_prompt": 2, "scheduler": "dpm++_sde"},
        {"prompt": "a", "image": IMAGE},
        {"prompt": "a", "image": IMAGE, "mask_image": MASK},
        {"prompt": "a", "image": IMAGE, "outpaint": "left=64,right=64", "width": None, "height": None},
        {"prompt": "a", "hires_scale": 2},
        {"prompt": "a", "hires_scale": 2, "hires_upscaler": "lanczos"},
        {"prompt": "a", "width": 128, "tile_size": 64},
    ],
    ids=lambda task: " ".join(map(str, task)),
)
def test_every_task_stops_wherever_it_is_and_the_next_call_is_whole(
    pipeline: StableDiffusionPipeline, task: dict[str, Any]
) -> None:
    call = CALL | task
    expected = pipeline(**call).images
    counts = [Countdown() for _ in range(3)]
    for count in counts:
        np.testing.assert_array_equal(pipeline(**call, cancel=count).images, expected)
    # Faster calls look less often.
    fewest = min(count.looks for count in counts)
    for looks in sorted({round(fewest * share) for share in (0, 0.05, 0.2, 0.4, 0.6)}):
        with pytest.raises(RunCancelledError, match="cancelled") as caught:
            pipeline(**call, cancel=Countdown(looks))
        error = caught.value
        assert error.argument == "cancel"
        assert 0 <= error.steps <= error.num_steps
        assert error.num_steps > 0
    np.testing.assert_array_equal(pipeline(**call).images, expected)


def test_nothing_is_loaded_for_a_call_that_is_cancelled_already(tiny_model: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(RunCancelledError) as caught:
        pipeline("a", **CALL, cancel=cancel)
    assert pipeline.graphs == ()
    assert (caught.value.steps, caught.value.num_steps, caught.value.images) == (0, 4, [])


@pytest.mark.full
def test_a_call_stops_inside_a_component(tiny_model: Path) -> None:
    """A call of the U-Net takes seconds. It is left in a tenth of a second, plus what other programs take."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, verify=False).load()
    cancel, pressed = threading.Event(), []
    call: dict[str, Any] = {"width": 704, "height": 704, "seed": 0, "num_inference_steps": 1, "max_size": 704}

    def seconds() -> float:
        began = time.perf_counter()
        pipeline("a", **call)
        return time.perf_counter() - began

    whole = min(seconds(), seconds())

    def press() -> None:
        pressed.append(time.perf_counter())
        cancel.set()

    for share in (0.3, 0.6):
        threading.Timer(whole * share, press).start()
        with pytest.raises(RunCancelledError):
            pipeline("a", **call, cancel=cancel)
        assert time.perf_counter() - pressed[-1] < 0.1 + whole / 10
        cancel.clear()


def test_native_code_that_does_not_stop_is_left_at_once() -> None:
    stop, cancel, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        stop.wait(10)
        time.sleep(1)
        ended.set()

    threading.Timer(0.1, cancel.set).start()
    began = time.monotonic()
    with cancelling(cancel.is_set), pytest.raises(RunCancelledError):
        interruptible(work, stop.set)
    assert time.monotonic() - began < 0.6
    assert not ended.is_set()
    assert ended.wait(10)


def test_a_worker_s_native_code_is_waited_for() -> None:
    """Recordings and the device's memory must not be used by two at once."""
    worker, stop, ended = Worker("test"), threading.Event(), threading.Event()

    def work() -> None:
        stop.wait(10)
        time.sleep(0.3)
        ended.set()

    asked = iter([False])
    with cancelling(lambda: next(asked, True)), pytest.raises(RunCancelledError):
        interruptible(work, stop.set, worker)
    assert ended.is_set()


def test_a_cancelled_run_does_not_wait_for_a_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    asked = iter([False] * 3)
    with cancelling(lambda: next(asked, True)), pytest.raises(RunCancelledError), held(lock):
        pass


def test_buffers_in_use_are_not_used_by_the_next_run(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime looks whether to stop only between two operators."""
    import onnxruntime

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    expected = pipeline("a", **CALL).images
    cancel, plain = threading.Event(), onnxruntime.InferenceSession.run_with_iobinding

    def slow(session: Any, binding: Any, options: Any) -> None:
        cancel.set()
        # Longer than the run after it.
        time.sleep(0.3)
        options.terminate = False
        plain(session, binding, options)
        ended.set()

    ended = threading.Event()
    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", slow)
    with pytest.raises(RunCancelledError):
        pipeline("another prompt", **CALL | {"seed": 2}, cancel=cancel)
    monkeypatch.undo()
    while not ended.is_set():
        np.testing.assert_array_equal(pipeline("a", **CALL).images, expected)


def test_another_run_of_the_pipeline_goes_on(tiny_model: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, verify=False)
    expected = pipeline("a", **CALL).images
    cancel, found = threading.Event(), []
    stream = pipeline.stream(Request(prompt="b", **CALL | {"num_inference_steps": 900}), cancel=cancel)
    other = threading.Thread(target=lambda: found.append(pipeline("a", **CALL).images))
    next(stream)
    other.start()
    cancel.set()
    with pytest.raises(RunCancelledError) as caught:
        next(stream)
    other.join()
    assert caught.value.steps == 1
    np.testing.assert_array_equal(found[0], expected)
    assert next(stream, None) is None


@pytest.mark.parametrize("output_type", ["np", "pil"])
def test_finished_images_are_not_lost(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, output_type: str
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    call = CALL | {"num_images_per_prompt": 3, "output_type": output_type}
    expected = pipeline("a", **call).images
    decoded: list[int] = []
    plain = VaeDecoder.__call__

    def decode(decoder: VaeDecoder, latents: Any) -> Any:
        image = plain(decoder, latents)
        decoded.append(1)
        return image

    monkeypatch.setattr(VaeDecoder, "__call__", decode)
    with pytest.raises(RunCancelledError) as caught:
        pipeline("a", **call, cancel=lambda: len(decoded) == 2)
    assert len(caught.value.images) == 2
    for image, one in zip(caught.value.images, expected, strict=False):
        np.testing.assert_array_equal(np.asarray(image), np.asarray(one))
    assert caught.value.steps == caught.value.num_steps == 4
    decoded.clear()
    with pytest.raises(RunCancelledError) as caught:
        # These are the small ones.
        pipeline("a", **call, hires_scale=2, cancel=lambda: len(decoded) == 2)
    assert caught.value.images == []


def test_the_result_is_given_though_the_token_is_set_after_the_last_step(tiny_model: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    cancel = threading.Event()
    stream = pipeline.stream(Request(prompt="a", **CALL), cancel=cancel)
    events = [next(stream) for _ in range(5)]
    cancel.set()
    assert hasattr(events[-1], "images")
    assert list(stream) == []


@pytest.mark.parametrize("wrong", [True, "yes", 1, threading.Event, object()])
def test_other_tokens_are_refused(tiny_model: Path, wrong: Any) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    with pytest.raises(RequestError, match=r"cancel is .*expected an object with is_set\(\)"):
        pipeline("a", **CALL, cancel=wrong)


@pytest.mark.parametrize("token", [asyncio.Event, lambda: lambda: False])
def test_events_of_other_kinds_and_functions(tiny_model: Path, token: Callable[[], Any]) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    assert pipeline("a", **CALL, cancel=token()).images.shape == (1, 64, 64, 3)


def test_the_documented_coroutine_stops_with_its_task(tiny_model: Path) -> None:
    """The example of docs/python.md, with a call that takes longer."""
    (code,) = re.findall(
        r"```python\n(import asyncio\n.*?)```", PYTHON.read_text(encoding="utf-8"), re.DOTALL
    )
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, verify=False)
    steps: list[int] = []

    def long(prompt: str, cancel: Any) -> Any:
        return pipeline(
            prompt,
            **CALL | {"num_inference_steps": 900},
            cancel=cancel,
            callback_on_step_end=lambda _, index, *rest: steps.append(index),
        )

    names: dict[str, Any] = {"pipeline": long}
    exec(code.replace("asyncio.run(", "made = (").replace("timeout=60", "timeout=0.5"), names)
    names["made"].close()

    async def main() -> float:
        began = time.monotonic()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(names["draw"]("a"), timeout=0.5)
        return time.monotonic() - began

    # asyncio.run waits for the thread.
    began = time.monotonic()
    took = asyncio.run(main())
    assert steps
    assert len(steps) < 900
    assert took < 5
    assert time.monotonic() - began < 5
