"""An export needs no torch, in a fresh interpreter; `verify` does."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
import transformers

from sdrt.errors import ExportError
from sdrt.model_folder.folder import Manifest
from sdrt_export import export_model
from sdrt_export.checkpoints.defaults import DEFAULTS, completed
from sdrt_export.checkpoints.normals import normals

FORBIDDEN = {
    "torch",
    "diffusers",
    "transformers",
    "onnxscript",
    "onnx_ir",
    "optimum",
    "safetensors",
    "accelerate",
}


def modules_after(*arguments: str) -> set[str]:
    """The top-level modules that the command has loaded at its end."""
    program = (
        "import json, sys\nfrom sdrt.cli import main\n"
        f"try: main({list(arguments)!r})\n"
        "finally: print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("target", ["cpu", "portable"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_an_export_loads_no_torch(
    checkpoint: Callable[[str], Path], session_cache: Path, tmp_path: Path, target: str, dtype: str
) -> None:
    options = ("--target", target, "--dtype", dtype, "-q")
    loaded = modules_after("export", str(checkpoint("sd1")), "-o", str(tmp_path / "model"), *options)
    assert {"onnx", "onnxruntime", "sdrt_export"} <= loaded
    assert loaded & FORBIDDEN == set()
    manifest = Manifest.read(tmp_path / "model")
    assert "torch" not in manifest.versions
    assert [name for name, entry in manifest.components.items() if "parity" in entry] == []


def test_random_weights_load_no_torch(session_cache: Path, tmp_path: Path) -> None:
    options = ("--architecture", "tiny", "--random-weights", "0", "-o", str(tmp_path / "model"), "-q")
    assert modules_after("export", *options) & FORBIDDEN == set()


def test_what_is_verified_and_what_is_not_are_the_same_files(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    plain, verified = (
        export_model(checkpoint("sd1"), tmp_path / str(verify), verify=verify) for verify in (False, True)
    )
    assert plain.files == verified.files
    assert all(entry["parity"] for entry in verified.components.values())


def test_without_torch_verify_names_the_command(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdrt_export.plan.missing_modules", lambda extra: ["torch", "diffusers"])
    with pytest.raises(ExportError, match=r"--verify needs torch, diffusers; run: pip install .*\[verify\]'"):
        export_model(checkpoint("sd1"), tmp_path / "model", verify=True)


def test_without_torch_optimums_exporter_names_the_command(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"verify": ["torch", "diffusers"], "optimum": ["optimum"]}
    monkeypatch.setattr("sdrt_export.plan.missing_modules", missing.__getitem__)
    needs = r"exporter 'optimum' needs torch, diffusers, optimum; run: pip install .*\[optimum\]'"
    with pytest.raises(ExportError, match=needs) as caught:
        export_model(checkpoint("sd1"), tmp_path / "model", target="portable", exporter="optimum")
    assert caught.value.argument == "exporter"
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 1000, 65536, 65537, 3 * 65536 + 5])
def test_random_weights_are_those_of_torch(size: int) -> None:
    """Up to rounding: 5e-7 of a standard deviation was measured. Shorter draws take another path than 16 values."""
    expected = torch.empty(size).normal_(0.3, 0.5, generator=torch.Generator().manual_seed(7)).numpy()
    assert np.abs(normals(7, size, 0.3, 0.5) - expected).max() <= 1e-6 * 0.5


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_the_libraries(name: str) -> None:
    """Each key of their classes, so that whoever reads a config finds what diffusers would write."""
    text = name.startswith("CLIP")
    owner = transformers.CLIPTextConfig if text else getattr(diffusers, name)
    parameters = inspect.signature(owner.__init__).parameters.values()
    theirs = {one.name: one.default for one in parameters if one.name not in ("self", "kwargs")}
    ours = {key: value for key, value in DEFAULTS[name].items() if key != "model_type"}
    assert ours == json.loads(json.dumps(theirs))
    assert DEFAULTS[name].get("model_type") == (transformers.CLIPTextConfig.model_type if text else None)


def test_a_config_is_complete_and_keeps_what_is_there() -> None:
    made = completed("UNet2DConditionModel", {"in_channels": 9, "new": None, "_name_or_path": "/home/me"})
    assert made["in_channels"] == 9
    assert made["norm_eps"] == 1e-5
    assert made["_class_name"] == "UNet2DConditionModel"
    assert "new" in made
    assert "_name_or_path" not in made
