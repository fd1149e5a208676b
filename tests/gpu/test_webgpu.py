"""WebGPU on a software driver: the same numbers as the CPU's, in buffers of the device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdrt.errors import ProviderError
from tests.gpu.software_gpu import run, why_not
from tests.made_once import MadeOnce

pytestmark = [pytest.mark.full, pytest.mark.skipif(bool(why_not()), reason=f"no WebGPU: {why_not()}")]

SCRIPT = Path(__file__).with_name("components_on_webgpu.py")
TASKS = Path(__file__).with_name("tasks_on_webgpu.py")
# Sums are in another order.
APART = 2e-4


@pytest.fixture(scope="module")
def portable(made_once: MadeOnce) -> Path:
    from sdrt_export import export_model

    def export(folder: Path) -> None:
        export_model(None, folder, architecture="tiny", random_weights=0, target="portable")

    return made_once("portable-float32", export)


@pytest.fixture(scope="module")
def components(tiny_model: Path, portable: Path) -> dict[str, Any]:
    done = run(SCRIPT, tiny_model, portable)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_each_component_gives_the_cpu_s_numbers(components: dict[str, Any]) -> None:
    for name, one in components["found"].items():
        assert one["apart"] <= APART * max(1, one["largest"]), (name, one)


def test_inputs_stay_on_the_device_but_what_the_cpu_reads(components: dict[str, Any]) -> None:
    for name, one in components["found"].items():
        expected = {
            "unet": ["encoder_hidden_states", "sample", "timestep"],
            "vae_decoder": ["latent_sample"],
            "text_encoder": [],
        }
        assert one["on_device"] == expected[name.rpartition("/")[2]]


def test_heavy_work_is_on_the_device(components: dict[str, Any]) -> None:
    for one in components["found"].values():
        assert one["placed"]["WebGpuExecutionProvider"]["MatMul"] > 1
        assert not {"Conv", "MatMul", "Softmax"} & set(one["placed"].get("CPUExecutionProvider", ()))


def test_attention_that_the_device_computes_wrongly_is_told_and_composed(components: dict[str, Any]) -> None:
    placed = [one["placed"]["WebGpuExecutionProvider"] for one in components["found"].values()]
    told = [line for line in components["told"] if "MultiHeadAttention wrongly" in line]
    if told:
        # Once for each component here, because each has notices of its own; a pipeline says it once.
        assert all("runs as matrix products and a softmax" in line for line in told)
        assert not any("MultiHeadAttention" in one for one in placed)
    else:
        assert any("MultiHeadAttention" in one for one in placed)


def test_the_image_of_the_command_is_the_cpu_s(tiny_model: Path, tmp_path: Path) -> None:
    images = []
    for provider in ("cpu", "webgpu"):
        path = tmp_path / f"{provider}.png"
        arguments = ["a cat", "-m", tiny_model, "--steps", "2", "--seed", "0", "--provider", provider]
        done = run("-m", "sdrt", "generate", *arguments, "-o", path)
        assert done.returncode == 0, done.stderr
        # Nothing but sdrt's own lines: the library writes its notes to the log of the process.
        assert "onnxruntime:" not in done.stderr
        assert done.stderr.count("MultiHeadAttention wrongly") <= 1
        images.append(np.asarray(Image.open(path), np.int16))
    assert np.abs(images[1] - images[0]).max() <= 1


def test_doctor_lists_the_device() -> None:
    done = run("-m", "sdrt", "doctor", "--json")
    findings = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
    assert "onnxruntime-ep-webgpu" in findings["webgpu"]["detail"]
    assert "devices 0: " in findings["webgpu"]["detail"]


def test_a_device_that_is_not_there(tiny_model: Path) -> None:
    done = run("-m", "sdrt", "generate", "a", "-m", tiny_model, "--provider", "webgpu:7", "-q")
    assert done.returncode == ProviderError.exit_code
    (line,) = done.stderr.splitlines()
    assert "there is no webgpu:7: expected webgpu:0 " in line


@pytest.fixture(scope="module")
def tasks() -> dict[str, Any]:
    done = run(TASKS)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_task_makes_the_cpu_s_image(tasks: dict[str, Any]) -> None:
    """Within one of 255 levels. Sums are in another order, and an image is rounded once."""
    assert len(tasks["apart"]) == 9
    assert {name: apart for name, apart in tasks["apart"].items() if not apart <= 1} == {}


def test_a_run_is_cancelled_between_two_steps(tasks: dict[str, Any]) -> None:
    assert tasks["cancelled"] == [1, 1]


def test_two_pipelines_share_the_device(tasks: dict[str, Any]) -> None:
    assert all(apart <= 1 for apart in tasks["together"])
