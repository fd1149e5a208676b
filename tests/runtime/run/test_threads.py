"""Threads that share a pipeline, and runs that are left or interrupted."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import GenerationStep, Request, RequestError, StableDiffusionPipeline, StableDiffusionPipelineOutput
from sdrt.onnx.session import Component
from tests.runtime.fast_calls import FAST, images


def test_a_run_keeps_the_sessions_it_began_with(tiny_model: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=1, verify=False)
    request = Request(prompt="a cat", **FAST)
    run = pipeline.stream(request)
    next(run)
    pipeline.close()
    *_, result = run
    assert pipeline.graphs == ()
    assert isinstance(result, StableDiffusionPipelineOutput)
    np.testing.assert_array_equal(result.images, images(pipeline))


def test_stream_ends_with_the_result_and_can_be_left(pipeline: StableDiffusionPipeline) -> None:
    *steps, result = pipeline.stream(Request(prompt="a cat", num_inference_steps=3, seed=1, output_type="np"))
    assert isinstance(result, StableDiffusionPipelineOutput)
    assert all(isinstance(step, GenerationStep) for step in steps)
    assert [step.last for step in steps] == [False] * (len(steps) - 1) + [True]
    assert {step.num_steps for step in steps} == {len(steps)}
    abandoned = pipeline.stream(Request(prompt="a dog", num_inference_steps=3))
    next(abandoned)
    del abandoned
    again = pipeline("a cat", num_inference_steps=3, seed=1, output_type="np").images
    np.testing.assert_array_equal(again, result.images)


def test_ctrl_c_in_a_step_leaves_the_pipeline_usable(pipeline: StableDiffusionPipeline) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images(pipeline, callback_on_step_end=interrupt)
    assert np.isfinite(images(pipeline)).all()


def test_a_plan_is_for_the_pipeline_that_made_it(pipeline: StableDiffusionPipeline, model_copy: Path) -> None:
    other = StableDiffusionPipeline.from_pretrained(model_copy, provider="cpu", threads=1, verify=False)
    plan = other.plan(Request(prompt="a cat", num_inference_steps=2, seed=1))
    with pytest.raises(RequestError, match="planned by another pipeline"):
        pipeline.stream(plan)
    with pytest.raises(RequestError, match="pass scheduler and spacing to plan"):
        other.stream(plan, scheduler="euler")
    assert len(list(other.stream(plan))) == plan.num_evaluations + 1


def test_threads_share_a_pipeline(pipeline: StableDiffusionPipeline) -> None:
    expected = {seed: images(pipeline, seed=seed) for seed in range(3)}
    got: dict[int, np.ndarray] = {}

    def work(seed: int) -> None:
        got[seed] = images(pipeline, seed=seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, made in expected.items():
        np.testing.assert_array_equal(got[seed], made)


def test_threads_make_each_session_once(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    create = Component.__init__

    def slow(self: Component, name: str, *rest: Any, **options: Any) -> None:
        made.append(name)
        time.sleep(0.05)
        create(self, name, *rest, **options)

    monkeypatch.setattr(Component, "__init__", slow)
    fresh = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=1, notify=made.append)
    threads = [threading.Thread(target=images, args=(fresh,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The U-Net loads beside the text encoder.
    assert sorted(name for name in made if "hashes" not in name) == ["text_encoder", "unet", "vae_decoder"]
    assert sum("checking" in message for message in made) <= 1


def test_closing_frees_and_a_later_call_loads_again(tiny_model: Path) -> None:
    with StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", verify=False).load() as pipeline:
        first = images(pipeline)
    np.testing.assert_array_equal(images(pipeline), first)
