"""`low_vram`: one component in memory at a time, and the same picture."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from sdrt import OutOfMemoryError, Request, RequestError, StableDiffusionPipeline
from sdrt.benchmark.memory import own_bytes
from sdrt.cli import main
from sdrt.onnx.buffers import Bound
from sdrt.onnx.engine import ort
from sdrt.onnx.error_messages import run_failure
from sdrt.onnx.providers import PROVIDERS, SessionConfig
from sdrt.run.components import Components

CALL: dict[str, Any] = {"num_inference_steps": 3, "width": 64, "height": 72, "seed": 1, "output_type": "np"}


def pipeline(folder: Path, **options: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, notify=lambda message: None, **options)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"guidance_scale": 1.0},
        {"num_images_per_prompt": 3},
        {"prompt": "a AND b:0.5"},
        {"prompt": "[a:b:0.5]"},
        {"prompt": "word " * 100},
        {"hires_scale": 1.5},
        {"width": 96, "tile_size": 64},
    ],
    ids=str,
)
def test_the_picture_is_the_same(tiny_model: Path, extra: dict[str, Any]) -> None:
    """Rows of a batch alone, and the VAE in tiles, are summed in another order: 1e-6 was measured."""
    call = {"prompt": "a lighthouse", **CALL, **extra}
    expected = pipeline(tiny_model)(**call).images
    np.testing.assert_allclose(pipeline(tiny_model, low_vram=True)(**call).images, expected, atol=1e-5)


@pytest.fixture
def no_cycles() -> Iterator[None]:
    """What is only found by looking for cycles stays in memory: gigabytes must go with their last use."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_cycles")
def test_one_component_is_open_at_a_time(tiny_model: Path) -> None:
    thrifty, seen = pipeline(tiny_model, low_vram=True), []

    def look(_: Any, index: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append([graph.name for graph in thrifty.graphs])
        return tensors

    assert thrifty.load().graphs == ()
    kept = list(thrifty.stream(Request(prompt="a", width=64, height=64, num_inference_steps=2, seed=0)))
    assert [graph.name for graph in thrifty.graphs] == ["vae_decoder"]
    del kept
    thrifty("a", callback_on_step_end=look, **CALL)
    assert seen
    assert {tuple(names) for names in seen} == {("unet",)}
    assert [graph.name for graph in thrifty.graphs] == ["vae_decoder"]
    assert "stages" in str(thrifty.graphs[0].path)


@pytest.mark.usefixtures("no_cycles")
@pytest.mark.parametrize("low_vram", [True, False])
def test_closing_frees_what_was_opened(tiny_model: Path, low_vram: bool) -> None:
    made = pipeline(tiny_model, low_vram=low_vram)
    made("a", **CALL)
    opened = [weakref.ref(graph) for graph in made.graphs]
    assert opened
    made.close()
    assert [reference() for reference in opened] == [None] * len(opened)


@pytest.mark.usefixtures("no_cycles")
def test_runs_at_once_share_what_is_open(tiny_model: Path) -> None:
    thrifty = pipeline(tiny_model, low_vram=True)
    expected = thrifty("a", **CALL).images
    request = Request(prompt="a", num_inference_steps=3, width=64, height=72, seed=1, output_type="np")
    streams = [thrifty.stream(request) for _ in range(3)]
    for _ in range(thrifty.num_evaluations(request)):
        for stream in streams:
            next(stream)
        assert [graph.name for graph in thrifty.graphs].count("unet") == 1
    for stream in streams:
        np.testing.assert_array_equal(next(stream).images, expected)  # type: ignore[union-attr]


def test_words_that_were_taught_are_known_to_the_next_text_encoder(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    width = 32
    vector = np.random.default_rng(0).standard_normal((1, width)).astype(np.float32)
    save_file({"emb_params": vector}, tmp_path / "moss.safetensors")
    made, thrifty = pipeline(tiny_model), pipeline(tiny_model, low_vram=True)
    for one in (made, thrifty):
        one.load_textual_inversion(tmp_path / "moss.safetensors")
    expected = made("moss", **CALL).images
    for _ in range(2):
        np.testing.assert_allclose(thrifty("moss", **CALL).images, expected, atol=1e-5)


def test_an_image_prompt_too(tiny_model: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (72, 64, 3), np.uint8)
    call = {"prompt": "a", **CALL, "image": picture, "strength": 0.7}
    expected = pipeline(tiny_model)(**call).images
    np.testing.assert_allclose(pipeline(tiny_model, low_vram=True)(**call).images, expected, atol=1e-5)


def test_tiles_can_be_refused(tiny_model: Path) -> None:
    whole = pipeline(tiny_model, low_vram=True, vae_tiling=False)
    whole("a", **CALL)
    assert whole.graphs[0].path.name == "model.onnx"


def test_it_is_true_or_false() -> None:
    with pytest.raises(RequestError, match="low_vram is 'yes': expected True, False or None"):
        SessionConfig(low_vram="yes")  # type: ignore[arg-type]


@pytest.fixture
def make_scarce(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Bound], bool]], None]:
    """From when it is called, only such buffers have room for what a run of them takes."""
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
def test_out_of_memory_takes_less_once_and_says_so(
    tiny_model: Path, make_scarce: Any, has_room: Any, extra: dict[str, Any]
) -> None:
    said: list[str] = []
    made = StableDiffusionPipeline.from_pretrained(tiny_model, notify=said.append)
    steps: list[int] = []

    def count(_: Any, index: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        steps.append(index)
        return tensors

    call = {"prompt": "a lighthouse", **CALL, **extra, "callback_on_step_end": count}
    expected, told_steps = made(**call).images, list(steps)
    make_scarce(has_room)
    steps.clear()
    np.testing.assert_allclose(made(**call).images, expected, atol=1e-5)
    # No step is told of twice.
    assert steps == told_steps
    told = [text for text in said if "ran out of memory" in text]
    assert len(told) == 1
    assert "Trying again with low_vram" in told[0]
    made(**call)
    assert len([text for text in said if "ran out of memory" in text]) == 1


def test_after_the_first_evaluation_nothing_is_tried_again(tiny_model: Path, make_scarce: Any) -> None:
    """Whoever listens would be told of the same steps twice."""
    said: list[str] = []
    made, runs = StableDiffusionPipeline.from_pretrained(tiny_model, notify=said.append), list[str]()

    def all_but_one(bound: Bound) -> bool:
        if bound._component.name != "unet":
            return True
        runs.append(bound._component.name)
        # A second try would have room.
        return len(runs) != 2

    make_scarce(all_but_one)
    with pytest.raises(OutOfMemoryError, match="unet ran out of memory"):
        made("a", **CALL)
    assert len(runs) == 2
    assert [text for text in said if "Trying again" in text] == []


def test_arrays_that_find_no_room_are_tried_again_too(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy's own failure, of latents or pictures."""
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


def test_smaller_pictures_are_made_as_before(tiny_model: Path, make_scarce: Any) -> None:
    made = pipeline(tiny_model)
    make_scarce(lambda bound: one_row(bound) or bound.shape("sample")[2] < 9)
    made("a", **CALL)
    assert [graph.name for graph in made.graphs] == ["vae_decoder"]
    made("a", **{**CALL, "height": 64})
    assert [graph.name for graph in made.graphs] == ["text_encoder", "unet", "vae_decoder"]


def test_it_can_be_refused_and_the_pipeline_goes_on(tiny_model: Path, make_scarce: Any) -> None:
    made = pipeline(tiny_model, low_vram=False)
    make_scarce(one_row)
    for _ in range(2):
        with pytest.raises(OutOfMemoryError, match=r"unet ran out of memory on cpu: make fewer .* low_vram"):
            made("a", **CALL)
        assert made.graphs == ()
    assert made("a", guidance_scale=1.0, **CALL).images.shape == (1, 72, 64, 3)


def test_what_still_does_not_fit_is_told(tiny_model: Path, make_scarce: Any) -> None:
    made = pipeline(tiny_model)
    make_scarce(lambda bound: bound._component.name != "unet" or bound.shape("sample")[2] < 9)
    with pytest.raises(OutOfMemoryError, match="unet ran out of memory"):
        made("a", **CALL)
    assert made("a", **{**CALL, "height": 64}).images.shape == (1, 64, 64, 3)


@pytest.mark.usefixtures("no_cycles")
def test_the_second_try_has_the_memory_of_the_first(tiny_model: Path, make_scarce: Any) -> None:
    """What ran out of memory is gone before the same is opened again; the VAE alone too, after the last step."""
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


@pytest.mark.skipif(sys.platform != "linux" or own_bytes("self") is None, reason="the system does not tell")
def test_what_is_let_go_of_is_given_back_to_the_system(tmp_path: Path) -> None:
    """glibc keeps small blocks for itself, unless it is asked."""
    code = """
import sys
import numpy as np
from sdrt.benchmark.memory import own_bytes
from sdrt.common.allocator import trim

# The first large block that is freed teaches glibc to keep others of up to 32 MB.
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
    """A third session finds no memory; with a device's memory, too, where another thread makes them."""
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
def test_components_that_do_not_fit_together_are_loaded_in_turn(tiny_model: Path) -> None:
    """All pictures are made so from then on, however small."""
    said: list[str] = []
    made = StableDiffusionPipeline.from_pretrained(tiny_model, notify=said.append)
    assert made.load().graphs == ()
    for height in (72, 64):
        assert made("a", **{**CALL, "height": height}).images.shape == (1, height, 64, 3)
        assert [graph.name for graph in made.graphs] == ["vae_decoder"]
    told = [text for text in said if "ran out of memory" in text]
    assert len(told) == 1
    assert "Trying again with low_vram, which is slower, for all pictures" in told[0]


@pytest.mark.usefixtures("two_components_fit", "no_cycles")
def test_that_can_be_refused_too(tiny_model: Path) -> None:
    made = pipeline(tiny_model, low_vram=False)
    with pytest.raises(OutOfMemoryError, match="vae_decoder ran out of memory"):
        made.load()
    assert made.graphs == ()


@pytest.mark.usefixtures("two_components_fit", "no_cycles")
def test_two_threads_that_load_find_the_same(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that comes second to the lack of memory, too, goes on with less."""
    made = pipeline(tiny_model)
    both, plain = threading.Barrier(2, timeout=30), Components.load

    def load(components: Components) -> None:
        if not components.low_vram:
            # Both have begun with all of them.
            both.wait()
        plain(components)

    monkeypatch.setattr(Components, "load", load)
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
def test_the_command_makes_its_picture_in_what_there_is(tiny_model: Path, tmp_path: Path) -> None:
    arguments = ["generate", "a", "-m", str(tiny_model), "--steps", "2", "-o", str(tmp_path / "a.png")]
    refused = CliRunner().invoke(main, [*arguments, "--no-low-vram"])
    assert refused.exit_code == 5
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "Trying again with low_vram" in done.stderr
    assert (tmp_path / "a.png").is_file()
