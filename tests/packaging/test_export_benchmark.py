"""`python -m benchmarks export`: what it writes to start from, what it runs, and how it judges."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from benchmarks import export, exporters, folders, measure, worker
from benchmarks.bars import met
from benchmarks.checkpoints import write_folder, write_single_file
from sdrt.common.safetensors_file import read_header, read_tensor
from sdrt_export import export_model
from sdrt_export.checkpoints.folder import open_folder
from sdrt_export.checkpoints.random import RandomCheckpoint

PARTS = ("text_encoder", "unet", "vae")
TINY = RandomCheckpoint(architecture="tiny", seed=0)


def test_the_folder_holds_the_weights(tmp_path: Path) -> None:
    write_folder(TINY, tmp_path / "checkpoint")
    found = open_folder(tmp_path / "checkpoint")
    for part in PARTS:
        wanted, tensors = TINY.tensors(part), found.tensors(part)
        assert set(tensors) == set(wanted)
        assert all(np.array_equal(tensors[name], wanted[name]) for name in wanted)
    index = json.loads((tmp_path / "checkpoint" / "model_index.json").read_text(encoding="utf-8"))
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]


def test_diffusers_loads_the_folder(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    write_folder(TINY, tmp_path / "checkpoint")
    unet = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "checkpoint" / "unet")
    wanted = TINY.tensors("unet")
    assert all(np.array_equal(value.numpy(), wanted[name]) for name, value in unet.state_dict().items())


def test_the_single_file_has_the_names_of_its_time(tmp_path: Path) -> None:
    write_single_file(TINY, tmp_path / "a.safetensors")
    file = read_header(tmp_path / "a.safetensors")
    assert len(file.tensors) == sum(len(TINY.tensors(part)) for part in PARTS)
    assert {entry.dtype for entry in file.tensors.values()} == {"F16"}
    for name, (part, own) in {
        "model.diffusion_model.input_blocks.0.0.weight": ("unet", "conv_in.weight"),
        "model.diffusion_model.middle_block.1.norm.bias": ("unet", "mid_block.attentions.0.norm.bias"),
        "first_stage_model.decoder.up.3.block.0.norm1.weight": (
            "vae",
            "decoder.up_blocks.0.resnets.0.norm1.weight",
        ),
        "cond_stage_model.transformer.text_model.final_layer_norm.bias": (
            "text_encoder",
            "text_model.final_layer_norm.bias",
        ),
    }.items():
        np.testing.assert_array_equal(read_tensor(file, name), TINY.tensors(part)[own].astype(np.float16))


def finished(seconds: float, result: dict[str, Any]) -> measure.Run:
    return measure.Run(
        seconds=seconds,
        cpu_seconds=seconds,
        system_seconds=seconds / 2,
        own_bytes=200_000_000,
        resident_bytes=1,
        device_bytes=None,
        result=result,
    )


def ran(monkeypatch: pytest.MonkeyPatch, cost: Mapping[str, float]) -> list[tuple[str, Mapping[str, str]]]:
    """Replace the runs by ones that take `cost` seconds of CPU time. Returns the list of what is run."""
    commands: list[tuple[str, Mapping[str, str]]] = []

    def run(command: Any, log: Path, *, environment: Mapping[str, str]) -> measure.Run:
        if "benchmarks.unet_step" in command:
            steps = [{"sdrt": 1.02, "0.1.0": 1.0}, {"sdrt": 1.0, "0.1.0": 1.0}, {"sdrt": 1.5, "0.1.0": 1.0}]
            return finished(1, {"turns": steps})
        name = next(
            path.name for path in command if isinstance(path, Path) and path.parent.name == "exported"
        )
        commands.append((name, environment))
        return finished(cost[name], {})

    monkeypatch.setattr(export, "run", run)
    monkeypatch.setattr(measure, "touch_free_memory", lambda: None)
    return commands


def compared(tmp_path: Path, settings: export.ExportSettings) -> dict[str, Any]:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir(exist_ok=True)
    (checkpoint / "model_index.json").touch()
    (tmp_path / folders.ARCHITECTURE).write_text("sd15", encoding="utf-8")
    return export.compare(tmp_path, settings)


def test_goals_of_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    baseline = tmp_path / "released"
    (baseline / "runtime").mkdir(parents=True)
    settings = export.ExportSettings(
        rounds=3, baseline=baseline, pythons={"0.1.0": sys.executable}, names=("sdrt", "0.1.0", "optimum")
    )
    commands = ran(monkeypatch, {"sdrt": 5, "0.1.0": 45, "optimum": 100})
    figures = compared(tmp_path, settings)
    # Each round begins with another one.
    assert [name for name, _ in commands][::3] == ["sdrt", "0.1.0", "optimum"]
    assert {env["PYTHONPATH"] for name, env in commands if name == "0.1.0"} == {str(baseline / "runtime")}
    assert figures["ratios_to_sdrt"]["0.1.0"]["cpu_seconds"] == {"min": 9, "median": 9, "max": 9}
    assert [bar["verdict"] for bar in figures["bars"]] == ["met", "NOT met", "met", "met"]
    assert figures["steps"]["ratio_to_released"] == {"min": 1.0, "median": 1.02, "max": 1.5}
    assert not met(figures)
    assert "| `0.1.0` | 45.0 s (9.00×, 9.00–9.00) |" in export.table(figures)
    json.dumps(figures)


def test_a_folder_that_is_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = export.ExportSettings(baseline=tmp_path, pythons={"0.1.0": sys.executable})
    with pytest.raises(measure.Failed, match=r"is no checkout of sdrt 0\.1\.0: expected commit f710566"):
        compared(tmp_path, settings)


def test_a_single_file_is_for_sdrt_alone() -> None:
    assert export._able(export.ExportSettings(source="single")) == (exporters.OURS,)


def test_cpu_time_counts_children(tmp_path: Path) -> None:
    busy = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(10**7))'])"
    idle = measure.run([sys.executable, "-c", "import time; time.sleep(0.5)"], tmp_path / "log.txt")
    done = measure.run([sys.executable, "-c", busy], tmp_path / "log.txt")
    assert idle.cpu_seconds < 0.4 < idle.seconds
    assert done.cpu_seconds > 0.1


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_the_single_file_is_as_others_write_it(tmp_path: Path, kind: str) -> None:
    """Every name and number, against diffusers' modules in the names of CompVis and OpenCLIP."""
    pytest.importorskip("diffusers")
    from tests.export.checkpoints import ldm_files

    made = ldm_files.made(kind)
    text = {**ldm_files.TEXT, "hidden_act": "gelu" if kind == "sd2" else "quick_gelu"}
    configs = {"unet": ldm_files.SD1_UNET if kind == "sd1" else ldm_files.SD2_UNET, "vae": ldm_files.VAE}

    class Fake:
        family = TINY.family

        def config(self, part: str) -> dict[str, Any]:
            return text if part == "text_encoder" else configs[part]

        def tensors(self, part: str) -> Any:
            return Known({name: tensor.numpy() for name, tensor in made.parts[part].items()})

    class Known(dict[str, Any]):
        def shape(self, name: str) -> tuple[int, ...]:
            return tuple(self[name].shape)

    checkpoint: Any = Fake()
    write_single_file(checkpoint, tmp_path / "a.safetensors")
    file = read_header(tmp_path / "a.safetensors")
    assert set(file.tensors) == set(made.tensors)
    for name, wanted in made.tensors.items():
        # The VAE's attention may be matrices or convolutions.
        np.testing.assert_array_equal(read_tensor(file, name).ravel(), wanted.astype(np.float16).ravel())


def test_steps_of_two_graphs_are_timed_in_turn(tmp_path: Path) -> None:
    tiny = tmp_path / "tiny"
    export_model(None, tiny, architecture="tiny", random_weights=0, target="cpu")
    options = ["--rounds", "3", "--size", "64", f"a={tiny}", f"b={tiny}"]
    command = [*worker.command(sys.executable, "unet_step"), *options]
    turns = measure.run(command, tmp_path / "log.txt", environment=worker.environment()).result["turns"]
    assert [[*turn] for turn in turns] == [["a", "b"], ["b", "a"], ["a", "b"]]
    assert all(seconds > 0 for turn in turns for seconds in turn.values())
