"""Tuned graphs: equal numbers, only for the machine and the weights that they were made for, nothing damaged."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sdrt.onnx.tuned as tuned_graphs
import sdrt.onnx.tuning as tuning
import sdrt_models
from sdrt import StableDiffusionPipeline
from sdrt.common.cancelling import cancelling
from sdrt.common.notices import Notices
from sdrt.errors import RunCancelledError, SdrtError
from sdrt.onnx.cpu_layout import cpu_layout
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component
from sdrt.onnx.tuned import TunedGraph, every_tuned_graph

Open = Callable[..., Component]


def decoded(component: Component) -> np.ndarray:
    source = np.random.default_rng(0)
    return component.run({"latent_sample": source.standard_normal((1, 4, 8, 8), np.float32)}, "sample")


def without_weights(tmp_path: Path) -> None:
    """Take the graph's own weights away, so that only a tuned graph can be loaded."""
    for path in (tmp_path / "vae_decoder").glob("*_data"):
        path.unlink()


def test_a_tuned_graph_gives_the_same_bits_and_is_loaded_in_place(
    vae: Open, tmp_path: Path, said: list[str]
) -> None:
    plain = decoded(vae(tune=False))
    np.testing.assert_array_equal(decoded(vae(tune=True)), plain)
    assert said[0].startswith("vae_decoder: tuned for this machine in ")
    without_weights(tmp_path)
    np.testing.assert_array_equal(decoded(vae()), plain)


@pytest.mark.parametrize("tune", [None, False])
def test_nothing_is_written_unless_it_is_asked_for(vae: Open, cache: Path, tune: bool | None) -> None:
    vae(tune=tune)
    assert not (cache / "compiled").exists()


def test_a_tuned_graph_is_left_alone_if_the_user_says_so(vae: Open, tmp_path: Path) -> None:
    vae(tune=True)
    without_weights(tmp_path)
    with pytest.raises(SdrtError):
        vae(tune=False)


def test_other_weights_have_another_place(vae: Open, tmp_path: Path) -> None:
    vae(tune=True)
    without_weights(tmp_path)
    with pytest.raises(SdrtError):
        vae(digest="b")


def test_another_machine_has_another_place(
    vae: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae(tune=True)
    without_weights(tmp_path)
    monkeypatch.setattr(tuned_graphs, "cpu_layout", lambda: "0" * 64)
    with pytest.raises(SdrtError):
        vae()


@pytest.mark.parametrize("weights", [{"digest": None}, {"adapted": True}])
def test_weights_that_nothing_identifies_or_adapters_changed_are_not_kept(
    vae: Open, cache: Path, weights: dict[str, bool | None]
) -> None:
    vae(tune=True, **weights)
    assert not (cache / "compiled").exists()


def test_it_is_said_if_nothing_identifies_the_weights(vae: Open, said: list[str]) -> None:
    vae(digest=None)
    assert said == []
    vae(tune=True, digest=None)
    assert said == ["vae_decoder: not tuned for this machine: nothing identifies its weights"]


def test_models_run_where_there_is_no_folder_for_temporary_files(
    vae: Open, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is tuned there, because nobody can tell how ONNX Runtime arranges weights."""
    plain = decoded(vae(tune=True))
    said.clear()

    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    cpu_layout.cache_clear()
    monkeypatch.setattr(tempfile, "TemporaryDirectory", fail)
    np.testing.assert_array_equal(decoded(vae()), plain)
    assert said == []
    np.testing.assert_array_equal(decoded(vae(tune=True)), plain)
    assert "No usable temporary directory" in said[0]


def flip(path: Path, at: int) -> None:
    """Change one bit, and leave size and time as they were."""
    state, content = path.stat(), bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_file_that_was_written_to_is_not_used(vae: Open) -> None:
    plain = decoded(vae(tune=True))
    (place,) = every_tuned_graph()
    flip(place.folder / "weights", 100)
    os.utime(place.folder / "weights")
    np.testing.assert_array_equal(decoded(vae()), plain)
    np.testing.assert_array_equal(decoded(vae(tune=True)), plain)
    assert [one.is_whole() for one in every_tuned_graph()] == [True]


def test_a_graph_that_cannot_be_loaded_is_removed(vae: Open, said: list[str]) -> None:
    plain = decoded(vae(tune=True))
    (place,) = every_tuned_graph()
    flip(place.graph, 0)
    np.testing.assert_array_equal(decoded(vae()), plain)
    assert "cannot be loaded, so it was removed" in said[-1]
    assert every_tuned_graph() == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": {}}', '{"files": {"graph.onnx": 1, "weights": 2}}']
)
def test_a_damaged_record_means_that_nothing_is_there(vae: Open, text: str) -> None:
    vae(tune=True)
    (place,) = every_tuned_graph()
    (place.folder / "tuned.json").write_text(text)
    assert not place.is_whole()
    decoded(vae())


def test_a_full_disk_is_said_and_the_graph_runs_untuned(
    vae: Open, said: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(cache.parent)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    decoded(vae(tune=True))
    assert "not tuned for this machine: it needs about 1.0 GB of disk, and 0.0 GB are free" in said[0]
    assert every_tuned_graph() == []


def test_a_disk_that_fills_up_leaves_nothing(vae: Open, said: list[str], cache: Path) -> None:
    resource = pytest.importorskip("resource")
    plain, _ = decoded(vae(tune=False)), cpu_layout()
    _, most = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, most))
    try:
        made = decoded(vae(tune=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    np.testing.assert_array_equal(made, plain)
    assert f"not tuned for this machine: ONNX Runtime cannot write to {cache / 'compiled'}" in said[0]
    assert [path for path in (cache / "compiled").rglob("*") if path.is_file()] == []


def test_a_failed_write_leaves_nothing(
    vae: Open, said: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TunedGraph, "finish", fail)
    decoded(vae(tune=True))
    assert "not tuned for this machine: [Errno 28]" in said[0]
    assert [path for path in (cache / "compiled").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx_data"])
def test_a_model_that_is_replaced_while_it_is_tuned_is_not_kept(
    vae: Open, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its place is that of the files that were there at first."""
    path = next((tmp_path / "vae_decoder").glob(name))
    compare = tuning._gives_the_same

    def replacing(*given: Any) -> bool:
        shutil.copy2(path, tmp_path / "other")
        (tmp_path / "other").replace(path)
        return compare(*given)

    monkeypatch.setattr(tuning, "_gives_the_same", replacing)
    plain = decoded(vae(tune=False))
    np.testing.assert_array_equal(decoded(vae(tune=True)), plain)
    assert f"not tuned for this machine: {path} changed while it was in use" in said[0]
    assert every_tuned_graph() == []


def image(pipeline: StableDiffusionPipeline, **settings: object) -> np.ndarray:
    return np.asarray(pipeline("a yellow moon", num_inference_steps=2, seed=0, **settings).images[0])


@pytest.mark.full
def test_a_pipeline_with_a_lora_makes_the_same_images(cache: Path) -> None:
    lora = {"lora": str(sdrt_models.adapter("moon"))}
    found = []
    for tune in (False, True, None):
        with StableDiffusionPipeline.from_pretrained("shapes", provider="cpu", tune=tune) as pipeline:
            found.append([image(pipeline), image(pipeline, **lora), image(pipeline)])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert len(every_tuned_graph()) == 3


@pytest.mark.full
def test_tune_keeps_every_graph_of_a_model(cache: Path) -> None:
    with StableDiffusionPipeline.from_pretrained("shapes", provider="cpu", notify=lambda _: None) as pipeline:
        before = pipeline.model.path
        assert pipeline.tune() is pipeline
        plain = image(pipeline)
    names = {one.folder.name.rpartition("-")[0] for one in every_tuned_graph()}
    assert names == {"text_encoder", "unet", "vae_decoder", "vae_encoder"}
    assert all(before in one.of.parents for one in every_tuned_graph())
    with StableDiffusionPipeline.from_pretrained("shapes", provider="cpu", tune=False) as pipeline:
        np.testing.assert_array_equal(image(pipeline), plain)


def test_a_cancelled_load_says_nothing_and_leaves_the_tuned_graph(vae: Open, said: list[str]) -> None:
    with cancelling(lambda: True), pytest.raises(RunCancelledError):
        vae(tune=True)
    assert said == []
    vae(tune=True)
    with cancelling(lambda: True), pytest.raises(RunCancelledError):
        vae()
    assert [one.is_whole() for one in every_tuned_graph()] == [True]
    assert len(said) == 1


def test_only_the_session_that_runs_is_profiled(tiny_model: Path, tmp_path: Path, cache: Path) -> None:
    config = SessionConfig(provider="cpu", tune=True, profile=str(tmp_path))
    path = tiny_model / "vae_decoder" / "model.onnx"
    component = Component("vae_decoder", path, config, Notices(), Weights(digest="a"))
    component.end_profile()
    assert len(every_tuned_graph()) == 1
    del component
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_a_tuned_graph_that_cannot_be_removed_is_not_called_removed(
    vae: Open, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vae(tune=True)
    (place,) = every_tuned_graph()
    flip(place.graph, 0)
    monkeypatch.setattr(TunedGraph, "remove", lambda self: None)
    decoded(vae())
    assert "cannot be removed; remove that folder" in said[-1]


def test_a_tuned_graph_that_vanishes_while_it_is_loaded_is_no_trouble(
    vae: Open, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, is_whole = decoded(vae(tune=True)), TunedGraph.is_whole

    def vanishing(self: TunedGraph) -> bool:
        found = is_whole(self)
        self.remove()
        return found

    said.clear()
    monkeypatch.setattr(TunedGraph, "is_whole", vanishing)
    np.testing.assert_array_equal(decoded(vae()), plain)
    assert said == []
