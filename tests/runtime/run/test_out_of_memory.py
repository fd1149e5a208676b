"""Memory that runs out: the run is repeated with `low_vram`, once, and the components that do not fit are closed."""

from __future__ import annotations

import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from sdrt import OutOfMemoryError, StableDiffusionPipeline
from sdrt.benchmark.memory import own_bytes
from sdrt.cli import main
from sdrt.model_folder.graph_kind import MoreInputs
from sdrt.onnx.buffers import Bound
from sdrt.onnx.engine import ort
from sdrt.onnx.error_messages import run_failure
from sdrt.onnx.providers import PROVIDERS
from sdrt.run.components import LoadedComponents
from tests.runtime.run.low_vram_calls import CALL, pipeline


@pytest.fixture
def make_scarce(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Bound], bool]], None]:
    """Return a function. After its call, runs raise an error unless `has_room` is true for their buffers."""
    plain = Bound.__call__

    def make(has_room: Callable[[Bound], bool]) -> None:
        def run(bound: Bound) -> Any:
            if not has_room(bound):
                reason = RuntimeError("Failed to allocate memory for requested buffer of size 1048576")
                raise run_failure(bound._component._subject, reason)
            return plain(bound)

        monkeypatch.setattr(Bound, "__call__", run)

    return make


def one_row(bound: Bound) -> bool:
    return bound._component.name != "unet" or bound.shape("sample")[0] == 1


def no_whole_vae(bound: Bound) -> bool:
    return bound._component.name != "vae_decoder"


@pytest.mark.parametrize("has_room", [one_row, no_whole_vae])
@pytest.mark.parametrize("extra", [{}, {"hires_scale": 1.5}], ids=str)
def test_if_memory_runs_out_the_run_is_repeated_once_with_a_warning(
    tiny_model: Path, make_scarce: Any, has_room: Any, extra: dict[str, Any]
) -> None:
    said: list[str] = []
    made = StableDiffusionPipeline.from_pretrained(tiny_model, notify=said.append)
    steps: list[int] = []

    def count(_: Any, index: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        steps.append(index)
        return tensors

    call = {"prompt": "a lighthouse", **CALL, **extra, "callback_on_step_end": count}
    expected, expected_steps = made(**call).images, list(steps)
    make_scarce(has_room)
    steps.clear()
    np.testing.assert_allclose(made(**call).images, expected, atol=1e-5)
    # The callback gets no step twice.
    assert steps == expected_steps
    warnings = [text for text in said if "ran out of memory" in text]
    assert len(warnings) == 1
    assert "Trying again with low_vram" in warnings[0]
    made(**call)
    assert len([text for text in said if "ran out of memory" in text]) == 1


def test_after_the_first_evaluation_the_run_is_not_repeated(tiny_model: Path, make_scarce: Any) -> None:
    """The callback would get the same steps twice."""
    said: list[str] = []
    made, runs = StableDiffusionPipeline.from_pretrained(tiny_model, notify=said.append), list[str]()

    def all_but_one(bound: Bound) -> bool:
        if bound._component.name != "unet":
            return True
        runs.append(bound._component.name)
        # A second attempt would succeed.
        return len(runs) != 2

    make_scarce(all_but_one)
    with pytest.raises(OutOfMemoryError, match="unet ran out of memory"):
        made("a", **CALL)
    assert len(runs) == 2
    assert [text for text in said if "Trying again" in text] == []


def test_memory_errors_of_numpy_are_handled_too(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy raises MemoryError if it cannot allocate an array of latents or images."""
    said: list[str] = []
    made = StableDiffusionPipeline.from_pretrained(tiny_model, notify=said.append)
    expected = made("a", **CALL).images
    failures = iter([MemoryError("Unable to allocate 192. KiB")])
    plain = Bound.set

    def put(bound: Bound, *arguments: Any) -> None:
        for error in failures:
            raise error
        plain(bound, *arguments)

    monkeypatch.setattr(Bound, "set", put)
    np.testing.assert_allclose(made("a", **CALL).images, expected, atol=1e-5)
    assert len([text for text in said if "Trying again with low_vram" in text]) == 1


def test_smaller_images_are_made_without_low_vram(tiny_model: Path, make_scarce: Any) -> None:
    made = pipeline(tiny_model)
    make_scarce(lambda bound: one_row(bound) or bound.shape("sample")[2] < 9)
    made("a", **CALL)
    assert [graph.name for graph in made.graphs] == ["vae_decoder"]
    made("a", **{**CALL, "height": 64})
    assert [graph.name for graph in made.graphs] == ["text_encoder", "unet", "vae_decoder"]


def test_without_low_vram_the_pipeline_raises_and_stays_usable(tiny_model: Path, make_scarce: Any) -> None:
    made = pipeline(tiny_model, low_vram=False)
    make_scarce(one_row)
    for _ in range(2):
        with pytest.raises(
            OutOfMemoryError, match=r"unet ran out of memory on cpu: use low_vram \(--low-vram\); "
        ):
            made("a", **CALL)
        assert made.graphs == ()
    assert made("a", guidance_scale=1.0, **CALL).images.shape == (1, 72, 64, 3)


def test_an_image_that_does_not_fit_with_low_vram_raises(tiny_model: Path, make_scarce: Any) -> None:
    made = pipeline(tiny_model)
    make_scarce(lambda bound: bound._component.name != "unet" or bound.shape("sample")[2] < 9)
    with pytest.raises(OutOfMemoryError, match="unet ran out of memory"):
        made("a", **CALL)
    assert made("a", **{**CALL, "height": 64}).images.shape == (1, 64, 64, 3)


@pytest.mark.usefixtures("no_cycles")
def test_the_first_attempt_is_freed_before_the_second(tiny_model: Path, make_scarce: Any) -> None:
    """This holds for a whole run, and for the VAE alone after the last step."""
    made, seen = pipeline(tiny_model), []

    def look(_: Any, index: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append([graph.name for graph in made.graphs])
        return tensors

    make_scarce(one_row)
    made("a", callback_on_step_end=look, **CALL)
    assert {tuple(names) for names in seen} == {("unet",)}
    made = pipeline(tiny_model)
    make_scarce(no_whole_vae)
    made("a", **CALL)
    assert [graph.path.name for graph in made.graphs] == ["stages.onnx"]


@pytest.mark.skipif(
    sys.platform != "linux" or own_bytes("self") is None, reason="the system does not report memory"
)
def test_freed_memory_is_returned_to_the_system(tmp_path: Path) -> None:
    """glibc keeps small blocks unless `trim` asks it to return them."""
    code = """
import sys
import numpy as np
from sdrt.benchmark.memory import own_bytes
from sdrt.common.allocator import trim

# After the first large block is freed, glibc keeps other blocks of up to 32 MB.
del (large := [np.ones(16 << 17)])[:]
kept = [(np.ones(1 << 17), np.ones(100)) for _ in range(300)]
most = own_bytes("self")
pins = [pin for _, pin in kept]
del kept
trim()
print(most - own_bytes("self"))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) > 250 << 20


@pytest.fixture(params=[None, "cpu"], ids=["host", "device"])
def two_components_fit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Creating a third session runs out of memory. Sessions on a device are created in another thread."""
    monkeypatch.setitem(PROVIDERS, "cpu", replace(PROVIDERS["cpu"], device=request.param))  # type: ignore[attr-defined]
    opened: weakref.WeakSet[Any] = weakref.WeakSet()
    plain = ort.InferenceSession

    def make(*arguments: Any, **named: Any) -> Any:
        if len(opened) == 2:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 1048576")
        session = plain(*arguments, **named)
        opened.add(session)
        return session

    make.get_provider_graph_assignment_info = None  # type: ignore[attr-defined]
    monkeypatch.setattr(ort, "InferenceSession", make)


@pytest.mark.usefixtures("two_components_fit", "no_cycles")
def test_components_that_do_not_fit_together_are_loaded_one_by_one(tiny_model: Path) -> None:
    """From then on, all images are made with low_vram, even small ones."""
    said: list[str] = []
    made = StableDiffusionPipeline.from_pretrained(tiny_model, notify=said.append)
    assert made.load().graphs == ()
    for height in (72, 64):
        assert made("a", **{**CALL, "height": height}).images.shape == (1, height, 64, 3)
        assert [graph.name for graph in made.graphs] == ["vae_decoder"]
    warnings = [text for text in said if "ran out of memory" in text]
    assert len(warnings) == 1
    assert "Trying again with low_vram, which is slower, for all images" in warnings[0]


@pytest.mark.usefixtures("two_components_fit", "no_cycles")
def test_without_low_vram_loading_raises(tiny_model: Path) -> None:
    made = pipeline(tiny_model, low_vram=False)
    with pytest.raises(OutOfMemoryError, match="vae_decoder ran out of memory"):
        made.load()
    assert made.graphs == ()


@pytest.mark.usefixtures("two_components_fit", "no_cycles")
def test_two_threads_can_load_at_once(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that runs out of memory second also continues with low_vram."""
    made = pipeline(tiny_model)
    both, plain = threading.Barrier(2, timeout=30), LoadedComponents.load

    def load(components: LoadedComponents, more: MoreInputs) -> None:
        if not components.low_vram:
            # Both threads begin without low_vram.
            both.wait()
        plain(components, more)

    monkeypatch.setattr(LoadedComponents, "load", load)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            made.load()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert made("a", **CALL).images.shape == (1, 72, 64, 3)


@pytest.mark.usefixtures("two_components_fit", "no_cycles")
def test_generate_continues_with_low_vram(tiny_model: Path, tmp_path: Path) -> None:
    arguments = ["generate", "a", "-m", str(tiny_model), "--steps", "2", "-o", str(tmp_path / "a.png")]
    refused = CliRunner().invoke(main, [*arguments, "--no-low-vram"])
    assert refused.exit_code == 5
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "Trying again with --low-vram" in done.stderr
    assert (tmp_path / "a.png").is_file()
