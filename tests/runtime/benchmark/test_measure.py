"""What a benchmark times: the pipeline's own steps, and by which rules it begins and ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sdrt import OutOfMemoryError, RequestError, SdrtError, StableDiffusionPipeline
from sdrt.benchmark import runner
from sdrt.benchmark.configurations import Asked, Configuration, Rules, expand
from sdrt.benchmark.measure import Model, open_pipeline, repeat, warm_up
from sdrt.benchmark.timed_generation import PARTS, Generation, Step, generator
from sdrt.common.spans import listening, span
from sdrt.onnx import engine as onnx_runtime
from sdrt.onnx.providers import SessionConfig


def configuration(pipeline: StableDiffusionPipeline, **asked: object) -> Configuration:
    lists = Asked(**({"steps": 3, "schedulers": ("euler",)} | asked))  # type: ignore[arg-type]
    ((found, _),) = expand(lists, lambda provider, threads: pipeline)
    return found


def test_what_goes_beside_a_checkpoint_reaches_the_first_image(pipeline: StableDiffusionPipeline) -> None:
    beside = {
        "vae": "v.safetensors",
        "text_encoders": ["l", "g"],
        "config": "c",
        "prediction_type": "epsilon",
    }
    command = runner._generate_command(Model("m", "m", beside), configuration(pipeline), Path("a.png"))
    given = {"--vae=v.safetensors", "--text-encoder=l", "--text-encoder=g", "--config=c"}
    assert given | {"--prediction-type=epsilon"} <= set(command)
    assert Model.of(pipeline.model, beside).beside == {}  # an exported model contains it


def test_what_is_passed_to_the_provider_reaches_every_process(
    pipeline: StableDiffusionPipeline, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[SessionConfig] = []
    monkeypatch.setattr(onnx_runtime, "settle", lambda config, notices: given.append(config) or config)
    asked = replace(
        configuration(pipeline, low_vram=True, provider_options={"enable_cuda_graph": "True"}),
        provider="cuda",
    )
    open_pipeline(Model(str(tiny_model), "tiny"), asked, print)
    assert (given[0].low_vram, given[0].provider_options) == (True, {"enable_cuda_graph": "True"})
    command = runner._generate_command(Model(str(tiny_model), "tiny"), asked, Path("a.png"))
    assert {"--provider-option=enable_cuda_graph=True", "--low-vram", "--provider=cuda"} <= set(command)


def lasting(*steps: float) -> Generation:
    """A generation whose first step took a second."""
    made = [Step(wall=wall, unet=wall, guidance=0, scheduler=0, transfers=0) for wall in (1.0, *steps)]
    return Generation(total=sum(steps), text_encoder=0, vae_decoder=0, steps=tuple(made))


def playing(generations: Sequence[Generation]) -> Callable[[], Generation]:
    """One after the other; a test that wants more than there are fails."""
    left = iter(generations)
    return lambda: next(left)


def test_a_step_is_the_sum_of_its_parts(pipeline: StableDiffusionPipeline) -> None:
    made = generator(pipeline, configuration(pipeline))()
    assert len(made.steps) == 3
    for step in made.steps:
        parts = [getattr(step, part) for part in PARTS]
        assert all(seconds > 0 for seconds in parts)
        assert sum(parts) == pytest.approx(step.wall, abs=1e-9)
    assert 0 < sum(step.wall for step in made.steps) + made.text_encoder + made.vae_decoder < made.total


def test_spans_tell_of_every_component_in_turn(pipeline: StableDiffusionPipeline) -> None:
    made = generator(pipeline, configuration(pipeline))()
    components = [name for name, _, _ in made.spans if name in ("text_encoder", "unet", "vae_decoder")]
    # The negative prompt is a text too.
    assert components == ["text_encoder"] * 2 + ["unet"] * 3 + ["vae_decoder"]
    assert all(0 <= start <= end <= made.total for _, start, end in made.spans)


def test_the_time_of_a_caller_is_no_time_of_a_step(
    pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object) -> None:
        time.sleep(0.05)

    # What happens before the first step and after the last one.
    monkeypatch.setattr("sdrt.run.one_pass.to_pil", slow)
    made = generator(pipeline, configuration(pipeline))()
    assert made.total > 0.05 > max(step.scheduler for step in made.steps)


def test_nobody_listens_outside() -> None:
    heard: list[str] = []
    with listening(lambda name, start, end: heard.append(name)), span("inside"):
        pass
    with span("outside"):
        pass
    assert heard == ["inside"]


def test_images_are_those_of_a_run_that_is_not_measured(pipeline: StableDiffusionPipeline) -> None:
    request = configuration(pipeline).request()
    plain = list(pipeline.stream(request))[-1]
    with listening(lambda *_: None):
        heard = list(pipeline.stream(request))[-1]
    assert plain.images[0].tobytes() == heard.images[0].tobytes()  # type: ignore[union-attr]


def test_warming_up_ends_when_two_generations_agree() -> None:
    later = [lasting(0.5), lasting(0.3), lasting(0.301)]
    found = warm_up(playing(later), lasting(0.9), Rules(), time.perf_counter() + 60)
    assert (found["generations"], found["ended_by"]) == (4, "agreement")


def test_the_first_step_says_nothing_of_how_warm_it_is() -> None:
    # 1 s each; the others agree.
    found = warm_up(playing([lasting(0.2, 0.2)]), lasting(0.2, 0.2), Rules(), time.perf_counter() + 60)
    assert found["generations"] == 2


def test_warming_up_that_never_agrees_ends_all_the_same() -> None:
    swinging = [lasting(0.1 if number % 2 else 0.2) for number in range(20)]
    found = warm_up(playing(swinging), lasting(0.1), Rules(most_warmup=5), time.perf_counter() + 60)
    assert (found["generations"], found["ended_by"]) == (5, "most generations")
    found = warm_up(playing(swinging), lasting(0.1), Rules(), time.perf_counter())
    assert (found["generations"], found["ended_by"]) == (2, "time limit")


def test_measuring_ends_when_the_median_is_known() -> None:
    alike = [lasting(0.100, 0.101, 0.100)] * 10
    kept, ended = repeat(playing(alike), Rules(precision=0.02), time.perf_counter() + 60)
    assert (len(kept), ended) == (3, "precision")
    kept, ended = repeat(playing(alike), Rules(precision=0.001), time.perf_counter())
    assert (len(kept), ended) == (1, "time limit")


def test_lists_make_every_combination_once(pipeline: StableDiffusionPipeline) -> None:
    asked = Asked(sizes=((64, 64), (64, 128)), batches=(1, 2, 1), schedulers=("euler", "heun"), steps=2)
    found = [one for one, _ in expand(asked, lambda provider, threads: pipeline)]
    assert len(found) == 8
    assert [one.evaluations for one in found[:2]] == [2, 3]
    assert {(one.width, one.height) for one in found} == {(64, 64), (64, 128)}


def test_the_model_s_own_settings_are_told(pipeline: StableDiffusionPipeline) -> None:
    settings = configuration(pipeline, schedulers=(None,)).settings()
    assert (settings["width"], settings["height"], settings["scheduler"]) == (64, 64, "pndm")
    assert (settings["provider"], settings["guidance_scale"]) == ("cpu", 7.5)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"sizes": ((64, 64), (65, 64))}, "width is 65: expected a multiple of 8"),
        ({"batches": (1, 0)}, "num_images_per_prompt is 0"),
        ({"schedulers": ("euler", "none")}, "unknown scheduler 'none'"),
        ({"steps": 0}, "num_inference_steps is 0"),
        ({"batches": tuple(range(1, 1002))}, "1001 configurations: expected at most 1000"),
    ],
)
def test_one_wrong_entry_of_a_list_is_an_error(
    pipeline: StableDiffusionPipeline, lists: dict[str, object], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        expand(Asked(**lists), lambda provider, threads: pipeline)  # type: ignore[arg-type]


@pytest.mark.parametrize("rules", [{"precision": 0}, {"precision": float("nan")}, {"time_limit": -1}])
def test_rules_that_cannot_be_kept(rules: dict[str, float]) -> None:
    with pytest.raises(RequestError, match=r"precision is|time limit is"):
        Rules(**rules)  # type: ignore[arg-type]


def test_a_worker_that_is_asked_nothing_ends_without_a_word() -> None:
    # As when Ctrl-C ends who started it before it could ask.
    done = subprocess.run(
        [sys.executable, "-m", "sdrt.benchmark.worker"], input="", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_device_s_memory_is_what_was_added_to_it(
    pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, heard = iter([5 << 30, 5 << 30]), list[str]()
    monkeypatch.setattr(runner, "used_bytes", lambda device: next(used, 7 << 30))

    def work(*_: object) -> tuple[dict[str, object], int]:
        time.sleep(0.1)
        return {"peak_resident": (3, "here")}, 2

    monkeypatch.setattr(runner, "_work", work)
    on_gpu = replace(configuration(pipeline), provider="cuda:1")
    memory = runner.measured(Model("folder", "name"), on_gpu, Rules(), heard.append)["memory"]
    assert memory == {
        "own_bytes": 2,
        "resident_bytes": 3,
        "resident_is": "here",
        "device_bytes": 2 << 30,
        "device_bytes_before": 5 << 30,
    }
    assert heard == []
    monkeypatch.setattr(runner, "used_bytes", lambda device: None)
    memory = runner.measured(Model("folder", "name"), on_gpu, Rules(), heard.append)["memory"]
    assert memory["device_bytes"] is None
    assert "memory is not measured" in heard[0]
    assert "[benchmark]'" in heard[0]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_worker_that_is_killed_ran_out_of_memory(
    pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = "import os, signal, sys; sys.stdin.read(); os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(runner, "_WORKER", (sys.executable, "-c", dying))
    with pytest.raises(OutOfMemoryError, match="killed, probably because memory ran out"):
        runner.measured(Model("folder", "name"), configuration(pipeline), Rules(), print)
    monkeypatch.setattr(runner, "_WORKER", (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(SdrtError, match="ended with code 3"):
        runner.measured(Model("folder", "name"), configuration(pipeline), Rules(), print)
