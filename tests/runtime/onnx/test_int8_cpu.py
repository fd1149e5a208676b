"""Folders in int8: on which processors they run, and on which they are refused."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path

import pytest

from sdrt import ProviderError, StableDiffusionPipeline
from sdrt.onnx.cpu import is_int8_faster
from sdrt.run import int8_models


@pytest.fixture
def marked(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model, whose manifest says int8."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    manifest = json.loads((model / "sdrt.json").read_text(encoding="utf-8"))
    (model / "sdrt.json").write_text(json.dumps(manifest | {"dtype": "int8"}), encoding="utf-8")
    return model


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", True),
        ("flags\t\t: fpu avx2 avx_vnni", True),
        ("flags\t\t: fpu avx2 avx512f", True),
        ("flags\t\t: fpu sse4_2 avx", False),
        ("Features\t: fp asimd asimddp", True),
        ("Features\t: fp asimd", False),
    ],
)
def test_linux_tells_what_the_processor_has(tmp_path: Path, text: str, has: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{text}\n", encoding="utf-8")
    assert is_int8_faster(tmp_path / "cpuinfo") is has


@pytest.mark.parametrize(
    ("system", "machine", "has"),
    [("Darwin", "arm64", True), ("Darwin", "x86_64", None), ("Windows", "AMD64", None)],
)
def test_elsewhere_only_apples_own_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, machine: str, has: bool | None
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert is_int8_faster(tmp_path / "cpuinfo") is has


def test_without_the_instructions_it_is_refused_with_the_remedy(
    marked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_models, "is_int8_faster", lambda: False)
    with pytest.raises(
        ProviderError, match=r"none of AVX2, VNNI and dot products.*--dtype fp32.*--allow-fallback"
    ):
        StableDiffusionPipeline.from_pretrained(marked, provider="cpu").load()


def test_it_runs_anyway_where_that_is_allowed(marked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_models, "is_int8_faster", lambda: False)
    said: list[str] = []
    pipeline = StableDiffusionPipeline.from_pretrained(
        marked, provider="cpu", allow_fallback=True, notify=said.append
    )
    pipeline("a cat", num_inference_steps=1)
    assert [line for line in said if "none of AVX2, VNNI and dot products" in line]


@pytest.mark.parametrize("known", [True, None])
def test_it_runs_where_they_are_there_or_nobody_knows(
    marked: Path, monkeypatch: pytest.MonkeyPatch, known: bool | None
) -> None:
    monkeypatch.setattr(int8_models, "is_int8_faster", lambda: known)
    said: list[str] = []
    StableDiffusionPipeline.from_pretrained(marked, provider="cpu", notify=said.append).load()
    assert not [line for line in said if "VNNI" in line]
