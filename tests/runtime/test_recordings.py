"""CUDA graphs without a GPU: which runs are recorded, in buffers that stay where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt.config import SessionConfig
from sdrt.notices import Notices
from sdrt.provider_options import Setting
from sdrt.session import Component, ort


class Recorded(Component):
    """A component on the CPU whose memory is called a device's."""

    def __init__(self, path: Path) -> None:
        super().__init__("unet", path, SessionConfig(provider="cpu", threads=1), Notices(None))
        self.records = True
        self.runs: list[int] = []

    def device_value(self, dtype: np.dtype[Any], shape: Any) -> Any:
        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, "cpu")

    def execute(self, binding: Any, recording: int = -1) -> None:
        self.runs.append(recording)
        super().execute(binding, recording)


@pytest.fixture
def recorded(tiny_model: Path) -> Recorded:
    return Recorded(tiny_model / "unet" / "model.onnx")


def shapes(size: int) -> dict[str, tuple[int, ...]]:
    return {"sample": (1, 4, size, 8), "timestep": (), "encoder_hidden_states": (1, 77, 32)}


def run(component: Component, size: int, seeds: tuple[int, ...]) -> list[np.ndarray]:
    found = []
    with component.bound(shapes(size), ("out_sample",)) as bound:
        for seed in seeds:
            random = np.random.default_rng(seed)
            for name, shape in shapes(size).items():
                bound.set(name, random.standard_normal(shape, dtype=np.float32).reshape(shape))
            found.append(bound()["out_sample"].copy())
    return found


def test_the_first_run_of_a_shape_is_plain_and_the_others_are_one_recording(recorded: Recorded) -> None:
    run(recorded, 8, (0, 1, 2))
    run(recorded, 16, (0, 1))
    run(recorded, 8, (3,))
    assert recorded.runs == [-1, 1, 1, -1, 2, 1]


def test_the_outputs_are_those_of_plain_runs(recorded: Recorded, tiny_model: Path) -> None:
    config = SessionConfig(provider="cpu", threads=1)
    plain = Component("unet", tiny_model / "unet" / "model.onnx", config, Notices(None))
    np.testing.assert_array_equal(run(recorded, 8, (0, 1, 2)), run(plain, 8, (0, 1, 2)))


def test_no_more_than_eight_are_kept(recorded: Recorded) -> None:
    for size in range(2, 22, 2):
        run(recorded, size, (0, 1))
    assert recorded.runs[1::2] == [1, 2, 3, 4, 5, 6, 7, 8, -1, -1]


def test_they_are_asked_for_and_of_the_unet_alone() -> None:
    config = SessionConfig(provider="cuda", provider_options={"enable_cuda_graph": True})
    assert config.passed("cuda", Setting(repeats=True))["enable_cuda_graph"] == "True"
    assert "enable_cuda_graph" not in config.passed("cuda", Setting())
    assert "enable_cuda_graph" not in SessionConfig(provider="cuda").passed("cuda", Setting(repeats=True))


def test_a_session_on_the_cpu_records_nothing(tiny_model: Path) -> None:
    config = SessionConfig(provider="cpu")
    component = Component("unet", tiny_model / "unet" / "model.onnx", config, Notices(None))
    assert not component.records
    assert component.new_recording() == -1
