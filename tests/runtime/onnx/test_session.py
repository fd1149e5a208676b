"""Sessions: input checks, buffers, and errors of the device."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import ComponentError, OutOfMemoryError, StableDiffusionPipeline
from sdrt.common.notices import Notices
from sdrt.onnx.buffers import Bound
from sdrt.onnx.error_messages import Subject, run_failure
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component


@pytest.fixture
def shapes(unet: Component) -> dict[str, tuple[int, ...]]:
    """Input shapes at batch 2 and 8 by 8 latents; other free dimensions are 77."""
    sizes: dict[int | str, int] = {"height": 8, "width": 8}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, spec in unet.inputs.items():
        first = 2 if len(spec.shape) > 1 else 1
        rest = [size if isinstance(size, int) else sizes.get(size, 77) for size in spec.shape[1:]]
        shapes[name] = (first, *rest) if spec.shape else ()
    return shapes


def fill(run: Bound, shapes: dict[str, tuple[int, ...]], seed: int) -> None:
    random = np.random.default_rng(seed)
    for name, shape in shapes.items():
        if name != "timestep":
            run.set(name, random.standard_normal(shape, dtype=np.float32))


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        (
            "sample",
            np.zeros((2, 3, 8, 8), np.float32),
            r"unet: input 'sample' takes float32\[.*got float32\[2, 3, 8, 8\]",
        ),
        ("sample", np.zeros((8, 8), np.float32), r"got float32\[8, 8\]"),
        (
            "sample",
            np.zeros((2, 4, 8, 9), np.float32),
            r"was bound for shape \(2, 4, 8, 8\), got \(2, 4, 8, 9\)",
        ),
        ("sample", np.zeros((2, 4, 8, 8), np.complex64), "got complex64"),
        ("sample", np.zeros((2, 4, 8, 8), np.int64), "got int64"),
        ("sample", np.zeros((2, 4, 8, 8), np.bool_), "got bool"),
        ("latents", np.zeros((2, 4, 8, 8), np.float32), "no input 'latents': it takes sample, timestep"),
    ],
)
def test_wrong_inputs_are_named(
    unet: Component, shapes: dict[str, tuple[int, ...]], name: str, array: np.ndarray, words: str
) -> None:
    with unet.bound(shapes, ("out_sample",)) as run, pytest.raises(ComponentError, match=words):
        run.set(name, array)


def test_text_ids_are_no_floats(tiny_model: Path) -> None:
    config = SessionConfig(provider="cpu", threads=1)
    encoder = Component("text_encoder", tiny_model / "text_encoder/model.onnx", config, Notices())
    with (
        encoder.bound({"input_ids": (1, 77)}, ("last_hidden_state",)) as run,
        pytest.raises(ComponentError, match=r"takes int\d\d\[.*got float32"),
    ):
        run.set("input_ids", np.zeros((1, 77), np.float32))


def test_another_component_s_graph_is_refused(tiny_model: Path) -> None:
    config = SessionConfig(provider="cpu", threads=1)
    wrong = Component("unet", tiny_model / "vae_decoder/model.onnx", config, Notices())
    with pytest.raises(ComponentError, match="takes latent_sample, expected sample, timestep"):
        wrong.require(("sample", "timestep", "encoder_hidden_states"), ("out_sample",))


def test_results_land_in_the_same_buffer_every_time(
    unet: Component, shapes: dict[str, tuple[int, ...]]
) -> None:
    addresses, results = set(), []
    for seed in (0, 1, 0):
        with unet.bound(shapes, ("out_sample",)) as run:
            fill(run, shapes, seed)
            for _ in range(2):
                output = run()["out_sample"]
                addresses.add(output.ctypes.data)
            results.append(output.copy())
    assert len(addresses) == 1
    np.testing.assert_array_equal(results[0], results[2])
    assert np.abs(results[0] - results[1]).max() > 0.01


def test_widths_of_one_kind_are_converted(unet: Component, shapes: dict[str, tuple[int, ...]]) -> None:
    results = []
    for dtype in (np.float16, np.float64):
        with unet.bound(shapes, ("out_sample",)) as run:
            run.set("sample", np.full(shapes["sample"], 0.5, dtype))
            results.append(run()["out_sample"].copy())
    np.testing.assert_array_equal(*results)


class CopyingBinding:
    """A binding as a provider with memory of its own has it: it copies an input when that is bound."""

    def __init__(self, binding: Any) -> None:
        self._binding, self._copies = binding, dict[str, np.ndarray]()
        self._iobinding = binding._iobinding

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        self._copies[name] = array.copy()
        self._binding.bind_cpu_input(name, self._copies[name])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._binding, name)


@pytest.mark.parametrize("memory", ["copied when bound", "the provider's own"])
def test_every_value_that_is_set_arrives(
    tiny_model: Path, shapes: dict[str, tuple[int, ...]], monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    config = SessionConfig(provider="cpu", threads=1)
    unet, plain = (Component("unet", tiny_model / "unet/model.onnx", config, Notices()) for _ in range(2))
    if memory == "the provider's own":
        # An OrtValue on the CPU stands in for one on a GPU.
        unet._row = replace(unet._row, device="cpu")
    else:
        monkeypatch.setattr(unet, "new_binding", lambda: CopyingBinding(unet._session.io_binding()))
    results = []
    for component in (unet, plain):
        with component.bound(shapes, ("out_sample",)) as run:
            assert bool(run._device) == (component is unet and memory == "the provider's own")
            fill(run, shapes, 0)
            run()
            fill(run, shapes, 1)
            run.set("timestep", np.full(run.shape("timestep"), 500, unet.inputs["timestep"].dtype))
            results.append(run()["out_sample"].copy())
    np.testing.assert_array_equal(*results)


def test_two_at_once_do_not_share_buffers(unet: Component, shapes: dict[str, tuple[int, ...]]) -> None:
    with unet.bound(shapes, ("out_sample",)) as one, unet.bound(shapes, ("out_sample",)) as two:
        fill(one, shapes, 1)
        fill(two, shapes, 2)
        first = one()["out_sample"].copy()
        two()
        np.testing.assert_array_equal(one()["out_sample"], first)


@pytest.fixture
def used(tiny_model: Path, shapes: dict[str, tuple[int, ...]]) -> Callable[[int], weakref.ref[Bound]]:
    """Takes buffers of a component for latents of this height, gives them back, and tells which they were."""
    config = SessionConfig(provider="cpu", threads=1)
    component = Component("unet", tiny_model / "unet" / "model.onnx", config, Notices())

    def use(height: int) -> weakref.ref[Bound]:
        with component.bound(shapes | {"sample": (2, 4, height, 8)}, ("out_sample",)) as run:
            return weakref.ref(run)

    return use


def test_buffers_that_nobody_uses_are_let_go_of(used: Callable[[int], weakref.ref[Bound]]) -> None:
    """All but four: each size that was ever asked for would stay in memory."""
    made = [used(height) for height in range(8, 18)]
    gc.collect()
    assert sum(reference() is not None for reference in made) == 4


def test_those_that_were_used_last_are_kept(used: Callable[[int], weakref.ref[Bound]]) -> None:
    made = {height: used(height) for height in range(8, 14)}
    # Not by when they were made: the oldest that is there is used again, so the next goes.
    assert used(10) == made[10]
    made[14] = used(14)
    gc.collect()
    assert [height for height, reference in made.items() if reference() is not None] == [10, 12, 13, 14]


@pytest.mark.parametrize(
    "said",
    [
        "Failed to allocate memory for requested buffer of size 1048576",
        # An arena with a limit, such as gpu_mem_limit, says it so.
        "Available memory of 1048576 is smaller than requested bytes of 4194304",
        "pthread_create failed, error code: 12 error msg: Cannot allocate memory",
        "can't start new thread",
    ],
)
def test_out_of_memory_is_told_as_such(said: str) -> None:
    subject = Subject(name="unet", path=Path("model.onnx"), provider="cuda", version="1")
    error = run_failure(subject, RuntimeError(said))
    assert isinstance(error, OutOfMemoryError)
    assert "low_vram" in str(error)


@pytest.mark.parametrize("method", ["device_value", "new_recording"])
def test_the_device_s_own_failures_are_ours(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Buffers are made and fetched apart from runs; what fails there is told as what fails in a run."""

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA failure 2: out of memory")

    monkeypatch.setattr(Component, method, fail)
    made = StableDiffusionPipeline.from_pretrained(tiny_model, low_vram=False)
    with pytest.raises(OutOfMemoryError, match=r"ran out of memory on cpu.*CUDA failure 2"):
        made("a", num_inference_steps=1, width=64, height=64)
