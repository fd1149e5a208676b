"""Records which keys diffusers and transformers write into configs, over their versions, with the classes' defaults.

    python -m tools.goldens.record_configs

It downloads the wheels with pip and reads the signatures of their classes. It imports nothing from them.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GOLDENS = Path(__file__).parents[2] / "tests" / "goldens" / "configs.json"
VERSIONS = {
    "diffusers": ("0.3.0", "0.14.0", "0.21.4", "0.27.2", "0.32.2", "0.36.0", "0.39.0"),
    "transformers": ("4.21.3", "4.27.4", "4.30.2", "4.41.2", "4.48.3", "4.57.6", "5.0.0"),
}
CLASSES = ("UNet2DConditionModel", "AutoencoderKL", "AutoencoderTiny", "CLIPTextConfig")
# Keys that transformers' base class adds to every config.
BASES = ("PretrainedConfig", "PreTrainedConfig")


def main() -> None:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for library, versions in VERSIONS.items():
            for version in versions:
                name = f"{library}=={version}"
                command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", name]
                subprocess.run([*command, "--dest", f"{folder}/{name}"], check=True)
                (wheel,) = Path(folder, name).iterdir()
                found[name] = configs(wheel)
    GOLDENS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def configs(wheel: Path) -> dict[str, dict[str, Any]]:
    """Each class of a wheel with the keys of its config and their defaults."""
    found: dict[str, dict[str, Any]] = {}
    shared: dict[str, Any] = {}
    with zipfile.ZipFile(wheel) as archive:
        for file in archive.namelist():
            if not file.endswith(".py") or ("/models/" not in file and "configuration_utils" not in file):
                continue
            text = archive.read(file).decode()
            if any(f"class {name}" in text for name in (*CLASSES, *BASES)):
                for name, keys in classes(ast.parse(text)):
                    (shared if name in BASES else found.setdefault(name, {})).update(keys)
    return {name: shared | keys if name == "CLIPTextConfig" else keys for name, keys in found.items()}


def classes(module: ast.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    for node in module.body:
        if isinstance(node, ast.ClassDef) and node.name in (*CLASSES, *BASES):
            for one in node.body:
                if isinstance(one, ast.FunctionDef) and one.name == "__init__":
                    yield node.name, signature(one) | (popped(one) if node.name in BASES else {})


def signature(function: ast.FunctionDef) -> dict[str, Any]:
    """The function's arguments that have defaults, with the defaults."""
    given = function.args
    pairs = [*zip(given.args[-len(given.defaults) or len(given.args) :], given.defaults, strict=True)]
    pairs += [(name, value) for name, value in zip(given.kwonlyargs, given.kw_defaults, strict=True) if value]
    return {name.arg: literal(value) for name, value in pairs}


def popped(function: ast.FunctionDef) -> dict[str, Any]:
    """The keys that `kwargs.pop(key, default)` takes."""
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and len(node.args) == 2]
    return {
        str(node.args[0].value): literal(node.args[1])
        for node in calls
        if isinstance(node.func, ast.Attribute)
        and node.func.attr == "pop"
        and isinstance(node.args[0], ast.Constant)
    }


def literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


if __name__ == "__main__":
    main()
