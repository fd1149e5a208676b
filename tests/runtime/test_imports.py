"""What importing and running may load, each in a fresh interpreter."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sdrt

FORBIDDEN = {"torch", "diffusers", "transformers", "optimum", "accelerate", "onnx", "onnxscript"}
LIGHT = {"sdrt"}


def modules_after(code: str, *, top: bool = True) -> set[str]:
    """Modules that `code` loads in a fresh interpreter beyond those of a bare one."""
    program = (
        "import sys, json; before = set(sys.modules)\n"
        f"{code}\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    return {name.partition(".")[0] for name in loaded} if top else loaded


def test_import_loads_nothing_but_the_package_itself() -> None:
    loaded = modules_after("import sdrt", top=False)
    assert {name for name in loaded if name.startswith("sdrt")} == LIGHT
    assert loaded.isdisjoint(
        {"numpy", "PIL", "onnxruntime", "tokenizers", "huggingface_hub", "click", "rich"}
    )


def test_the_pipeline_class_needs_no_onnxruntime_until_it_runs() -> None:
    loaded = modules_after("from sdrt import StableDiffusionPipeline")
    assert loaded.isdisjoint(FORBIDDEN | {"onnxruntime", "tokenizers", "PIL", "huggingface_hub"})


def test_generating_loads_no_torch(tiny_model: Path) -> None:
    code = (
        "from sdrt import StableDiffusionPipeline\n"
        f"pipeline = StableDiffusionPipeline.from_pretrained({str(tiny_model)!r}, provider='cpu', threads=1)\n"
        "pipeline('a cat', num_inference_steps=1, height=64, width=64)"
    )
    loaded = modules_after(code)
    assert {"onnxruntime", "tokenizers", "PIL"} <= loaded
    assert loaded.isdisjoint(FORBIDDEN)


def test_without_onnxruntime_the_error_names_the_command(tiny_model: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from sdrt import ProviderError, StableDiffusionPipeline\n"
        f"try: StableDiffusionPipeline.from_pretrained({str(tiny_model)!r})\n"
        'except ProviderError as error: assert "[cpu]\'" in str(error), error\n'
        "else: raise SystemExit('no error')"
    )
    modules_after(code)


ALLOWED = {"PIL", "filelock", "flatbuffers", "google", "numpy", "onnxruntime", "platformdirs", "tokenizers"}
"""Third-party packages that a run from a folder may load, by ONNX Runtime's wheel or by us."""


def test_a_run_from_a_folder_loads_only_what_it_needs(tiny_model: Path) -> None:
    code = (
        "import importlib.metadata as metadata\n"
        "names = set(metadata.packages_distributions())\n"
        "before = set(sys.modules)\n"
        "from sdrt import StableDiffusionPipeline\n"
        f"pipeline = StableDiffusionPipeline.from_pretrained({str(tiny_model)!r}, provider='cpu', threads=1)\n"
        "pipeline('a cat', num_inference_steps=1)\n"
        "found = {name.partition('.')[0] for name in set(sys.modules) - before} & names\n"
        "print(*sorted(found - {'sdrt', 'sdrt_models'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) <= ALLOWED


def test_importing_reads_no_model() -> None:
    code = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "import sdrt, sdrt_models\n"
        "from sdrt import StableDiffusionPipeline\n"
        "print(*[name for name in opened if 'sdrt_models' in name and not name.endswith(('.py', '.pyc'))])"
    )
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_architectures_there_are_is_known_without_torch() -> None:
    assert not FORBIDDEN & modules_after("import sdrt_export; assert 'sd15' in sdrt_export.ARCHITECTURES")


def test_one_module_imports_onnxruntime() -> None:
    root = Path(sdrt.__file__).parent
    importing = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if re.search(r"^\s*(import|from) onnxruntime", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert importing == {"onnx/engine.py"}


def test_public_surface() -> None:
    expected = {"StableDiffusionPipeline", "StableDiffusionPipelineOutput", "GenerationStep", "Request"}
    expected |= {
        "SdrtError",
        "RequestError",
        "ModelError",
        "ModelNotFoundError",
        "IntegrityError",
        "ExportError",
    }
    expected |= {
        "UnsupportedModelError",
        "ComponentError",
        "ProviderError",
        "OutOfMemoryError",
        "RunCancelledError",
        "SdrtWarning",
    }
    assert set(sdrt.__all__) == expected | {"__version__", "expand_wildcards", "read_metadata"}
    for name in sdrt.__all__:
        value = getattr(sdrt, name)
        assert isinstance(value, str) or value.__name__ == name
    assert set(dir(sdrt)) == set(sdrt.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="sdrt has no Colour: it has ComponentError, "):
        sdrt.Colour  # noqa: B018


def test_version_is_the_distribution_s() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{sdrt.__version__}"\n' in text
