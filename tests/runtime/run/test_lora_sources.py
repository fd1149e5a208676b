"""LoRAs on the hub: ids, files in them, and addresses. The hub is a function here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdrt import StableDiffusionPipeline
from sdrt.errors import ModelNotFoundError, UnsupportedModelError
from sdrt.run.lora_sources import file_of, name_of
from tests.adapters import write_lora

USUAL = "pytorch_lora_weights.safetensors"
FILES = {
    "org/usual": ["README.md", "other.safetensors", USUAL],
    "org/one.v2": ["deep/ink.safetensors", "ink.bin"],
    "org/two": ["a.safetensors", "b.safetensors"],
    "org/none": ["model.ckpt"],
}


@pytest.fixture
def asked(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    """What was downloaded: the model, the file and the revision."""
    calls: list[tuple[str, str, Any]] = []
    model = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu").model
    shapes = {name: model.parameters(name) for name in ("unet", "text_encoder")}

    def download(name: str, file: str, *, revision: str | None, **options: Any) -> str:
        calls.append((name, file, revision))
        path = tmp_path / "hub" / name / ("c" * 40) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(write_lora(path, shapes))

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.list_repo_files", lambda self, name, revision=None: FILES[name]
    )
    return calls


@pytest.mark.parametrize(
    ("given", "weight_name", "wanted", "called"),
    [
        ("org/usual", None, ("org/usual", USUAL, None), "usual"),
        ("org/usual", "other.safetensors", ("org/usual", "other.safetensors", None), "usual"),
        ("org/one.v2", None, ("org/one.v2", "deep/ink.safetensors", None), "one.v2"),
        ("org/two:b.safetensors", None, ("org/two", "b.safetensors", None), "b"),
        ("org/two/deep/b.safetensors", None, ("org/two", "deep/b.safetensors", None), "b"),
        (
            "https://huggingface.co/org/two/blob/v1/b.safetensors",
            None,
            ("org/two", "b.safetensors", "v1"),
            "b",
        ),
    ],
)
def test_a_lora_comes_from_the_hub(
    asked: list[tuple[str, str, Any]],
    given: str,
    weight_name: str | None,
    wanted: tuple[str, str, Any],
    called: str,
) -> None:
    assert file_of(given, weight_name).is_file()
    assert file_of(Path(given), weight_name).is_file()
    assert asked == [wanted, wanted]
    assert name_of(Path(given)) == called


def test_calls_and_methods_take_ids(asked: list[tuple[str, str, Any]], tiny_model: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=1)
    call: dict[str, Any] = {"num_inference_steps": 1, "seed": 0, "width": 64, "height": 64}
    named = pipe("a", lora="org/two:b.safetensors:0.5", **call)
    pipe("b", lora="org/two:b.safetensors:0.5", **call)
    assert len(asked) == 1
    pipe.load_lora_weights("org/two", weight_name="b.safetensors", revision="v1")
    assert asked[1] == ("org/two", "b.safetensors", "v1")
    pipe.set_adapters("default_0", 0.5)
    assert pipe("a", **call).images[0].tobytes() == named.images[0].tobytes()


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("org/two", ModelNotFoundError, r"it has a.safetensors, b.safetensors\); name one: org/two:FILE"),
        ("org/none", ModelNotFoundError, r"it has none"),
        ("org/none/model.ckpt", UnsupportedModelError, "pickle"),
        ("org/none.safetensors", ModelNotFoundError, "there is no LoRA file org/none.safetensors"),
        ("loras/ink", ModelNotFoundError, "there is no LoRA file loras/ink"),
        (
            "https://example.org/a/b/blob/main/c.safetensors",
            ModelNotFoundError,
            "is not an address on the hub",
        ),
    ],
)
def test_what_is_not_there_is_said(
    asked: list[tuple[str, str, Any]], given: str, error: type[Exception], words: str
) -> None:
    Path("loras").mkdir()
    with pytest.raises(error, match=words):
        file_of(given)
    assert not asked


def test_without_the_network_the_cache_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFoundError, match=r"org/usual.*not in the cache"):
        file_of("org/usual")


def test_a_name_that_no_file_can_have_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu")
    name = "n" * 5000
    with pytest.raises(ModelNotFoundError, match=f"there is no LoRA file {name}: expected the path of"):
        pipeline.load_lora_weights(name)
    with pytest.raises(ModelNotFoundError, match=f"there is no LoRA file {name}"):
        pipeline("a", lora=name, num_inference_steps=1)
    with pytest.raises(ModelNotFoundError, match=f"lora_dir {name} is no folder"):
        pipeline("a <lora:one:1>", lora_dir=name, num_inference_steps=1)
    (tmp_path / "a.safetensors").write_bytes(b"")
    with pytest.raises(
        ModelNotFoundError, match=r"has no file 'none\.safetensors' \(it has a\.safetensors\)"
    ):
        pipeline.load_lora_weights(tmp_path, weight_name="none.safetensors")
    with pytest.raises(ModelNotFoundError, match=r"has no file 'nnn.*\(it has a\.safetensors\)"):
        pipeline.load_lora_weights(tmp_path, weight_name=f"{name}.safetensors")
