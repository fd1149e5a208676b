"""Sessions: providers, input checks, buffers, cancelling."""

from __future__ import annotations

import _thread
import threading
from pathlib import Path

import numpy as np
import pytest

from sdrt import ComponentError, ProviderError, RequestError, StableDiffusionPipeline
from sdrt.config import Notices, SessionConfig, provider_names
from sdrt.interrupt import interruptible
from sdrt.session import Bound, Component, available_providers


@pytest.fixture(scope="module")
def unet(tiny_model: Path) -> Component:
    config = SessionConfig(provider="cpu", threads=1)
    return Component("unet", tiny_model / "unet" / "model.onnx", config, Notices(lambda message: None))


@pytest.fixture
def shapes(unet: Component) -> dict[str, tuple[int, ...]]:
    """Input shapes at batch 2 and 8 by 8 latents; other free dimensions are 77."""
    sizes: dict[int | str, int] = {"height": 8, "width": 8}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, port in unet.inputs.items():
        first = 2 if len(port.shape) > 1 else 1
        rest = [size if isinstance(size, int) else sizes.get(size, 77) for size in port.shape[1:]]
        shapes[name] = (first, *rest) if port.shape else ()
    return shapes


def fill(run: Bound, shapes: dict[str, tuple[int, ...]], seed: int) -> None:
    random = np.random.default_rng(seed)
    for name, shape in shapes.items():
        if name != "timestep":
            run.set(name, random.standard_normal(shape, dtype=np.float32))


@pytest.mark.parametrize("provider", ["gpu", "CUDAExecutionProvider", "", "cpu0"])
def test_unknown_provider_lists_the_valid_ones(tiny_model: Path, provider: str) -> None:
    with pytest.raises(ProviderError, match=f"unknown provider '{provider}'.*auto, cpu, cuda, tensorrt"):
        StableDiffusionPipeline.from_pretrained(tiny_model, provider=provider)
    assert "cpu" in provider_names()


def test_bad_device_number_and_threads() -> None:
    with pytest.raises(ProviderError, match="expected a device number"):
        SessionConfig(provider="cuda:x")
    with pytest.raises(RequestError, match="threads is 0"):
        SessionConfig(threads=0)


@pytest.mark.skipif("cuda" in available_providers(), reason="this build has CUDA")
def test_cuda_without_cuda_is_an_error_with_the_fix(tiny_model: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cuda")
    with pytest.raises(ProviderError, match=r"no cuda provider .*offers cpu.*pip install 'sdrt\[gpu\]'"):
        pipeline.load()
    with pytest.raises(ProviderError, match="no cuda provider"):
        StableDiffusionPipeline.from_pretrained(tiny_model).to("cuda")


def test_provider_is_resolved(tiny_model: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    assert pipeline.to("cpu") is pipeline
    assert pipeline.provider == "cpu"


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


def test_two_at_once_do_not_share_buffers(unet: Component, shapes: dict[str, tuple[int, ...]]) -> None:
    with unet.bound(shapes, ("out_sample",)) as one, unet.bound(shapes, ("out_sample",)) as two:
        fill(one, shapes, 1)
        fill(two, shapes, 2)
        first = one()["out_sample"].copy()
        two()
        np.testing.assert_array_equal(one()["out_sample"], first)


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


def test_a_failure_in_the_worker_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0, lambda: None)
