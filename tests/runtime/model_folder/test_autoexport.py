"""Torch checkpoints given as a model: they are exported once, by one process at a time, with progress messages."""

from __future__ import annotations

import io
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sdrt import (
    IntegrityError,
    ModelNotFoundError,
    ProviderError,
    RequestError,
    StableDiffusionPipeline,
    UnsupportedModelError,
)
from sdrt.common.cache import cache_root
from sdrt.common.notices import Notices
from sdrt.model_folder import autoexport as autoexport_module
from sdrt.model_folder.autoexport import Source, export_random
from sdrt.model_folder.folder import ModelFolder
from sdrt.model_folder.resolve import resolve_model

INDEX = """{
  "_class_name": "StableDiffusionPipeline",
  "scheduler": ["diffusers", "PNDMScheduler"],
  "text_encoder": ["transformers", "CLIPTextModel"],
  "tokenizer": ["transformers", "CLIPTokenizer"],
  "unet": ["diffusers", "UNet2DConditionModel"],
  "vae": ["diffusers", "AutoencoderKL"]
}"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A minimal torch checkpoint: an index and weights, but no graph."""
    folder = tmp_path / "checkpoint"
    for part in ("unet", "vae"):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text("{}")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").touch()
    (folder / "model_index.json").write_text(INDEX)
    return folder


class Exporter(ModuleType):
    """Replaces `sdrt_export`. It copies the tiny model and records the calls."""

    def __init__(self, model: Path) -> None:
        super().__init__("sdrt_export")
        self.model, self.calls, self.seconds = model, list[dict[str, Any]](), 0.0

    def export_model(
        self, source: str | Path, output: Path, *, reporter: Callable[[Any], None], **options: Any
    ) -> None:
        self.calls.append({"source": source, "output": output, **options})
        reporter(SimpleNamespace(component="unet", stage="export", detail="40 nodes"))
        time.sleep(self.seconds)
        shutil.copytree(self.model, output)
        reporter(SimpleNamespace(component="", stage="done", detail=""))


@pytest.fixture
def exporter(model_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Exporter:
    made = Exporter(model_copy)
    (model_copy / "sdrt.json").write_text(
        '{"format_version": 1, "family": "", "target": "cpu", "dtype": "float32", "opset": 20, "exporter": "sdrt",'
        ' "source": {}, "versions": {}, "components": {}, "files": {}}'
    )
    monkeypatch.setattr(ModelFolder, "_check_files", lambda self: None)
    monkeypatch.setattr(autoexport_module, "missing_modules", lambda extra: [])
    monkeypatch.setitem(sys.modules, "sdrt_export", made)
    return made


@pytest.fixture
def hub(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Make the hub's owner/name the checkpoint. Returns the calls that download its configs."""
    calls: list[dict[str, Any]] = []

    def download(name: str, **options: Any) -> Path:
        calls.append({"name": name, **options})
        return checkpoint

    monkeypatch.setattr("sdrt.model_folder.hub.download", download)
    return calls


def ignore(message: object) -> None:
    """Show nothing."""


def test_a_checkpoint_is_exported_once(checkpoint: Path, exporter: Exporter) -> None:
    messages: list[str] = []
    first = resolve_model(checkpoint, notify=messages.append)
    again = resolve_model(checkpoint, notify=messages.append)
    assert first.path == again.path
    assert first.path.is_relative_to(cache_root())
    assert len(exporter.calls) == 1
    assert messages == [
        f"exporting {checkpoint} to {first.path}, once",
        "unet: exporting, 40 nodes",
        "model: done",
    ]
    (checkpoint / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"other weights")
    assert resolve_model(checkpoint, notify=ignore).path != first.path
    portable = resolve_model(checkpoint, notify=ignore, target="portable").path
    assert portable not in [call["output"] for call in exporter.calls[:2]]


def test_a_damaged_export_in_the_cache_says_what_to_delete(
    checkpoint: Path, exporter: Exporter, tiny_model: Path
) -> None:
    exporter.model = tiny_model
    folder = resolve_model(checkpoint).path
    graph = folder / "unet" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match=f"delete {re.escape(str(folder))}, and sdrt makes it again"):
        resolve_model(checkpoint)
    shutil.rmtree(folder)
    assert resolve_model(checkpoint).verify()
    assert len(exporter.calls) == 2


def test_a_second_thread_waits_and_takes_the_result(checkpoint: Path, exporter: Exporter) -> None:
    exporter.seconds = 0.3
    messages: list[str] = []
    found: list[Path] = []

    def resolve() -> None:
        found.append(resolve_model(checkpoint, notify=messages.append).path)

    threads = [threading.Thread(target=resolve) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(exporter.calls) == 1
    assert len(found) == 2
    assert found[0] == found[1]
    assert sum(message.startswith("waiting for another process") for message in messages) == 1


def test_without_notify_the_export_reports_on_stderr(
    checkpoint: Path, exporter: Exporter, capsys: pytest.CaptureFixture[str]
) -> None:
    resolve_model(checkpoint)
    out, errors = capsys.readouterr()
    assert out == ""
    assert "once\nunet: exporting, 40 nodes\nmodel: done\n" in errors


def test_on_a_terminal_the_export_has_a_live_display(
    checkpoint: Path, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    resolve_model(checkpoint)
    assert "exporting  40 nodes" in screen.getvalue()
    assert "\x1b[" in screen.getvalue()


def test_a_program_without_a_console_exports_too(
    checkpoint: Path, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert resolve_model(checkpoint).path.is_dir()


def test_notify_and_reporter_silence_it(
    checkpoint: Path, exporter: Exporter, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[Any] = []
    resolve_model(checkpoint, notify=ignore, reporter=events.append)
    assert [event.stage for event in events] == ["export", "done"]
    assert capsys.readouterr() == ("", "")


def test_hub_options_reach_the_exporter(
    checkpoint: Path, exporter: Exporter, hub: list[dict[str, Any]], tmp_path: Path
) -> None:
    resolve_model("owner/name", revision="v1", token="hf_x", cache_dir=tmp_path / "hub", notify=ignore)
    options = {"revision": "v1", "token": "hf_x", "cache_dir": tmp_path / "hub", "safety_checker": True}
    assert hub == [{"name": "owner/name", **options}]
    (call,) = exporter.calls
    assert call["source"] == "owner/name"
    assert (call["revision"], call["token"], call["cache_dir"]) == (checkpoint.name, "hf_x", tmp_path / "hub")


def test_a_foreign_index_is_refused_before_the_weights(
    checkpoint: Path, exporter: Exporter, hub: list[dict[str, Any]]
) -> None:
    index = checkpoint / "model_index.json"
    (checkpoint / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    for text, words in (
        (
            INDEX.replace("StableDiffusionPipeline", "StableDiffusion3Pipeline"),
            "3Pipeline' is not supported",
        ),
        (INDEX.replace("UNet2DConditionModel", "UNet3DConditionModel"), r"unet is \['diffusers', 'UNet3D"),
        (INDEX.replace('"diffusers", "AutoencoderKL"', '"my_code", "AutoencoderKL"'), "vae is"),
        (INDEX.replace('"scheduler"', '"text_encoder_2"'), "'text_encoder_2'"),
    ):
        index.write_text(text)
        with pytest.raises(UnsupportedModelError, match=words):
            resolve_model("owner/name", notify=ignore)
    assert not exporter.calls
    assert len(hub) == 4


def test_a_missing_provider_is_refused_before_any_download(
    exporter: Exporter, hub: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdrt.onnx.engine.available_providers", lambda: ("cpu",))
    with pytest.raises(ProviderError, match="no cuda provider"):
        StableDiffusionPipeline.from_pretrained("owner/name", provider="cuda")
    assert not hub
    assert not exporter.calls


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_checkpoint_without_the_exporter_names_the_command(
    checkpoint: Path, hub: list[dict[str, Any]], in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoexport_module, "missing_modules", lambda extra: ["onnx"])
    for name in (checkpoint, "owner/name"):
        with pytest.raises(ModelNotFoundError, match=rf"{name} is .*: pip install .*\[export\]', then run"):
            resolve_model(name, in_memory=in_memory)


def test_an_unwritable_cache_names_the_variable(
    checkpoint: Path, exporter: Exporter, own_cache: Path
) -> None:
    own_cache.write_text("a file where the folder should be")
    with pytest.raises(ValueError, match=r"cannot be written.*SDRT_CACHE"):
        resolve_model(checkpoint, notify=ignore)


def test_the_token_is_not_shown() -> None:
    assert "hf_secret" not in repr(Source(name="a/b", configs=Path(), token="hf_secret"))


def test_random_weights_are_exported_once(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"tiny": {"unet": {"in_channels": 4, "out_channels": 4}, "vae": {"latent_channels": 4}}}
    table["inpaint"] = {**table["tiny"], "unet": {"in_channels": 9, "out_channels": 4}}
    exporter.ARCHITECTURES = table  # type: ignore[attr-defined]
    notices = Notices(ignore)
    first = export_random("tiny", target="cpu", notices=notices)
    assert export_random("tiny", target="cpu", notices=notices).path == first.path
    assert first.path.is_relative_to(cache_root())
    assert [call["architecture"] for call in exporter.calls] == ["tiny"]
    with pytest.raises(RequestError, match="unknown architecture 'sd9': expected one of tiny, inpaint"):
        export_random("sd9", target="cpu", notices=notices)
    with pytest.raises(RequestError, match="inpaint needs an input image"):
        export_random("inpaint", target="cpu", notices=notices)
    # An exported model needs no exporter.
    monkeypatch.setattr(autoexport_module, "missing_modules", lambda extra: ["onnx"])
    assert export_random("tiny", target="cpu", notices=notices).path == first.path
    with pytest.raises(
        ModelNotFoundError, match=r"sd15 with random weights must be exported first.*\[export\]"
    ):
        export_random("sd15", target="cpu", notices=notices)
