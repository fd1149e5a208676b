"""CUDA graphs without a GPU: which runs are recorded, in buffers that stay where they are."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import ProviderError
from sdrt.common.notices import Notices
from sdrt.onnx.buffers import Bound
from sdrt.onnx.engine import ort, require_sound_recordings
from sdrt.onnx.provider_options import Setting, cuda_options
from sdrt.onnx.providers import PROVIDERS, SessionConfig
from sdrt.onnx.session import Component


class Recorded(Component):
    """A component on the CPU whose memory is called a device's."""

    def __init__(self, path: Path) -> None:
        self.said: list[str] = []
        config = SessionConfig(provider="cpu", threads=1, provider_options={"enable_cuda_graph": True})
        super().__init__("unet", path, config, Notices(self.said.append), repeats=True)
        assert self.records
        self.runs: list[int] = []

    def device_value(self, dtype: np.dtype[Any], shape: Any) -> Any:
        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, "cpu")

    def execute(self, bound: Bound) -> None:
        self.runs.append(bound.recording)
        super().execute(bound)


@pytest.fixture
def recorded(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    row = replace(PROVIDERS["cpu"], device="cpu", takes=PROVIDERS["cuda"].takes, compose=cuda_options)
    monkeypatch.setitem(PROVIDERS, "cpu", row)  # type: ignore[attr-defined]
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
    assert recorded.said == [
        "unet: keeps at most 8 recordings of enable_cuda_graph; other sizes run without one"
    ]


def test_shapes_in_turn_keep_their_recordings(recorded: Recorded) -> None:
    for _ in range(3):
        for size in range(2, 14, 2):
            run(recorded, size, (0, 1))
    assert recorded.runs[0:12:2] == [-1] * 6
    assert recorded.runs[12:] == [number for number in range(1, 7) for _ in range(2)] * 2


def test_two_users_of_a_shape_have_a_recording_each(recorded: Recorded) -> None:
    for _ in range(2):
        with (
            recorded.bound(shapes(8), ("out_sample",)) as one,
            recorded.bound(shapes(8), ("out_sample",)) as two,
        ):
            assert one is not two
            for bound in (one, two, one, two):
                bound()
    assert recorded.runs[:4] == [-1, -1, 1, 2]
    assert sorted(recorded.runs[4:]) == [1, 1, 2, 2]


def test_all_runs_are_made_by_one_thread(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded in one thread is not there for another."""
    makers: set[int] = set()

    class Watched:
        def __init__(self, session: Any) -> None:
            self._session = session

        def __getattr__(self, name: str) -> Any:
            if name.startswith("run"):
                makers.add(threading.get_ident())
            return getattr(self._session, name)

    monkeypatch.setattr(recorded, "_session", Watched(recorded._session))
    run(recorded, 8, (0, 1, 2))
    other = threading.Thread(target=run, args=(recorded, 8, (0, 1)))
    other.start()
    other.join()
    assert len(recorded.runs) == 5
    assert len(makers) == 1
    assert threading.get_ident() not in makers


def test_a_recording_that_was_not_finished_is_never_replayed(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime ends and keeps it whatever became of the run."""
    plain = Component.execute

    def execute(component: Component, bound: Bound) -> None:
        if bound.recording == 1:
            recorded.runs.append(bound.recording)
            raise KeyboardInterrupt
        plain(component, bound)

    with recorded.bound(shapes(8), ("out_sample",)) as bound:
        bound()
        monkeypatch.setattr(Component, "execute", execute)
        with pytest.raises(KeyboardInterrupt):
            bound()
    with recorded.bound(shapes(8), ("out_sample",)) as bound:
        bound()
        bound()
    assert recorded.runs[0] == -1
    assert 1 not in recorded.runs[recorded.runs.index(1) + 2 :]
    assert recorded.runs[-2:] == [2, 2]


def test_a_replay_that_was_interrupted_is_replayed_again(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was recorded is whole; another number each time would use up all there are."""
    plain = Component.execute

    def execute(component: Component, bound: Bound) -> None:
        recorded.runs.append(bound.recording)
        raise KeyboardInterrupt

    with recorded.bound(shapes(8), ("out_sample",)) as bound:
        for _ in range(3):
            bound()
        monkeypatch.setattr(Component, "execute", execute)
        for _ in range(10):
            with pytest.raises(KeyboardInterrupt):
                bound()
        monkeypatch.setattr(Component, "execute", plain)
        bound()
    assert {number for number in recorded.runs if number != -1} == {1}
    assert recorded.said == []


@pytest.mark.parametrize(("version", "sound"), [("1.29.2", False), ("1.30.0", True), ("2.0", True)])
def test_versions_that_mix_up_recordings_are_refused(
    monkeypatch: pytest.MonkeyPatch, version: str, sound: bool
) -> None:
    monkeypatch.setattr(ort, "__version__", version)
    if sound:
        require_sound_recordings()
        return
    with pytest.raises(ProviderError, match=r"needs onnxruntime-gpu 1\.30 or later; 1\.29\.2 mixes up"):
        require_sound_recordings()


def test_without_recordings_too_a_device_s_work_is_one_thread_s(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuDNN's plans of attention are those of a thread: another one for each step would make them anew."""
    row = replace(PROVIDERS["cpu"], device="cpu")
    monkeypatch.setitem(PROVIDERS, "cpu", row)  # type: ignore[attr-defined]
    makers: set[int] = set()
    session, binding = ort.InferenceSession, ort.InferenceSession.run_with_iobinding
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda *given, **named: makers.add(threading.get_ident()) or session(*given, **named),
    )

    def run_with_iobinding(self: Any, *arguments: Any) -> None:
        makers.add(threading.get_ident())
        binding(self, *arguments)

    monkeypatch.setattr(session, "run_with_iobinding", run_with_iobinding)
    component = Component(
        "unet", tiny_model / "unet" / "model.onnx", SessionConfig(provider="cpu"), Notices(None)
    )
    run(component, 8, (0, 1))
    run(component, 16, (0,))
    assert len(makers) == 1
    assert threading.get_ident() not in makers


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
