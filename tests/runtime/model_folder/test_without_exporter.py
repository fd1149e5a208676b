"""What needs the exporter says so where it is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

import sdrt_models
from sdrt import StableDiffusionPipeline
from sdrt.errors import ExportError


@pytest.fixture(autouse=True)
def _no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdrt.model_folder.exporter.missing_modules", lambda extra: ["onnx"])


def opened(**given: object) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained("shapes", provider="cpu", verify=False, **given)


def test_a_controlnet_beside_a_model_folder() -> None:
    with pytest.raises(
        ExportError, match=r"^ControlNets beside a model folder need .*: pip install .*\[export\]"
    ):
        opened(controlnet=sdrt_models.adapter("edges"))


def test_an_ip_adapter_beside_a_model_folder_and_later(tmp_path: Path) -> None:
    file = tmp_path / "adapter.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ExportError, match=r"^IP-Adapters beside a model folder need .*\[export\]"):
        opened(ip_adapter=file)
    with opened() as pipeline, pytest.raises(ExportError, match=r"^IP-Adapters that are loaded later need "):
        pipeline.load_ip_adapter(file)
