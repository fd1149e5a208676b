"""What a user installs: the wheel's content, its metadata, and that it works away from the checkout."""

from __future__ import annotations

import email
import email.message
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import sdrt

pytest.importorskip("hatchling", reason="comes with the test extra")

ROOT = Path(__file__).parents[2]
PACKAGES = {"sdrt": "runtime", "sdrt_export": "export", "sdrt_models": "models"}


def pip(*arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"sdrt-{sdrt.__version__}.dist-info/METADATA"))


def test_it_holds_the_three_packages_and_nothing_else(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    assert tops == {*PACKAGES, f"sdrt-{sdrt.__version__}.dist-info"}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_a_package_is_in_it(names: set[str], package: str) -> None:
    room = ROOT / PACKAGES[package]
    files = {
        path.relative_to(room).as_posix()
        for path in (room / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert f"{package}/py.typed" in files
    assert {name for name in names if name.startswith(f"{package}/")} == files


def test_which_extras_ask_for_torch(metadata: email.message.Message) -> None:
    heavy = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "optimum")
    wanted = [line for line in metadata.get_all("Requires-Dist", []) if line.startswith(heavy)]
    assert wanted
    extras = ("verify", "optimum", "train", "test")
    assert all(line.endswith(tuple(f"extra == '{extra}'" for extra in extras)) for line in wanted)


def test_an_export_needs_onnx_alone(metadata: email.message.Message) -> None:
    lines = metadata.get_all("Requires-Dist", [])
    assert [line.partition(">")[0] for line in lines if line.endswith("extra == 'export'")] == ["onnx"]


@pytest.mark.full
def test_an_installation_that_exports_is_small_and_exports(wheel: Path, tmp_path: Path) -> None:
    """Needs the package index. It takes 301 MB, most of it ONNX Runtime's and NumPy's."""
    environment = tmp_path / "venv"
    venv.create(environment)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip("--python", environment, "install", "--quiet", f"{wheel}[cpu,export]")
    size = sum(
        path.stat().st_size for path in environment.rglob("*") if path.is_file() and not path.is_symlink()
    )
    print(f".[cpu,export] takes {size / 1e6:.0f} MB")
    assert size <= 400e6
    options = ["--architecture", "tiny", "--random-weights", "0", "-o", tmp_path / "model"]
    command = [python, "-I", "-m", "sdrt", "export", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model" / "unet" / "model.onnx_data").is_file()
    done = subprocess.run(
        [*command, "--verify", "--force"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "--verify needs diffusers, torch, transformers; run: pip install" in done.stderr


def test_no_onnxruntime_without_an_extra(metadata: email.message.Message) -> None:
    wanted = [line for line in metadata.get_all("Requires-Dist", []) if line.startswith("onnxruntime")]
    # cpu, gpu, openvino; webgpu, tensorrt-rtx and mlx, each with its plug-in; and test through cpu and webgpu.
    assert len(wanted) == 12
    assert all("extra ==" in line for line in wanted)


def test_it_works_where_nothing_else_is_installed(wheel: Path, tmp_path: Path) -> None:
    """`--no-deps`: importing, and finding the embedded model, need the standard library alone."""
    environment = tmp_path / "venv"
    venv.create(environment)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    pip("--python", environment, "install", "--no-deps", "--no-index", wheel)
    program = (
        "import sdrt, sdrt_models, pathlib\n"
        "model = sdrt_models.path('shapes')\n"
        "assert (model / 'unet' / 'model.onnx').stat().st_size > 1000\n"
        "print(sdrt.__version__, pathlib.Path(sdrt.__file__).parent, sep='\\n')"
    )
    done = subprocess.run(
        [scripts / "python", "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    version, folder = done.stdout.splitlines()
    assert version == sdrt.__version__
    assert Path(folder).is_relative_to(environment)
    assert any(path.stem == "sdrt" for path in scripts.iterdir())
