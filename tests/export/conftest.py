"""Exported components, each made once per session: the whole sd1 folder by `export_model`, others built directly."""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.export.built import write
from tests.made_once import MadeOnce

if TYPE_CHECKING:
    from sdrt_export import ProgressEvent
    from sdrt_export.components import Component

# The exporter comes with an extra; without it there is nothing to test.
collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]

if not collect_ignore_glob and "PYTEST_XDIST_WORKER" in os.environ:
    import torch

    # torch's threads wait in loops: two processes with two threads each, on two cores, take fifty times as long.
    torch.set_num_threads(1)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One component: the torch module, its graph's file, and the names that the exporter calls transposed."""

    component: Component
    module: Any
    path: Path
    transposed: list[str]


Get = Callable[[str, str, str], Exported]


@pytest.fixture(scope="session")
def checkpoint(made_once: MadeOnce) -> Callable[[str], Path]:
    """The folder of a checkpoint of `checkpoints.VARIANTS`. Not to be written to."""
    from tests.parity.checkpoints import make_checkpoint

    def make(variant: str, folder: Path) -> None:
        with warnings.catch_warnings():
            # diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            make_checkpoint(folder, variant)

    return lambda variant: made_once(f"checkpoint/{variant}", lambda folder: make(variant, folder))


@dataclass(frozen=True, kw_only=True)
class Export:
    """What an export of sd1 for the CPU left, and what it reported on the way."""

    source: Path
    folder: Path
    events: list[ProgressEvent]


@pytest.fixture(scope="session")
def sd1_export(
    checkpoint: Callable[[str], Path], session_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Export:
    """The checkpoint sd1 by `export_model`. Not to be written to."""
    from sdrt_export import export_model

    events: list[ProgressEvent] = []
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_model(checkpoint("sd1"), folder, target="cpu", verify=True, reporter=events.append)
    return Export(source=checkpoint("sd1"), folder=folder, events=events)


@pytest.fixture(scope="session")
def exported(
    checkpoint: Callable[[str], Path],
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Get:
    """`exported(variant, target, component)`; sd1 for the CPU comes out of the folder that users get."""
    root, made = tmp_path_factory.mktemp("components"), {}

    def get(variant: str, target: str, name: str) -> Exported:
        key = (variant, target, name)
        if key not in made:
            folder = request.getfixturevalue("sd1_export").folder if key[:2] == ("sd1", "cpu") else None
            made[key] = _from_folder(checkpoint(variant), folder, name) if folder else _build(*key)
        return made[key]

    def _build(variant: str, target: str, name: str) -> Exported:
        from sdrt_export import TARGETS
        from sdrt_export.component_graphs import transposed_weights

        component, module = _load(checkpoint(variant), name)
        folder = root / variant / target / name
        graph = write(component, module, TARGETS[target], folder)
        return Exported(
            component=component,
            module=module,
            path=folder / "model.onnx",
            transposed=transposed_weights(graph),
        )

    return get


def _from_folder(source: Path, folder: Path, name: str) -> Exported:
    from sdrt.model_folder.folder import Manifest

    component, module = _load(source, name)
    transposed = Manifest.read(folder).components[name]["transposed"]
    return Exported(
        component=component, module=module, path=folder / name / "model.onnx", transposed=transposed
    )


def _load(source: Path, name: str) -> tuple[Component, Any]:
    from sdrt_export.checkpoints.folder import open_folder
    from sdrt_export.components import COMPONENTS
    from sdrt_export.verify.modules import load_part

    return COMPONENTS[name], load_part(open_folder(source), COMPONENTS[name].checkpoint)


@pytest.fixture(scope="session")
def optimum_export(checkpoint: Callable[[str], Path], session_cache: Path, made_once: MadeOnce) -> Path:
    """The checkpoint sd1 by `export_model` with optimum's exporter."""
    from sdrt_export import export_model

    def export(folder: Path) -> None:
        with warnings.catch_warnings():
            # optimum warns about itself while it is imported and called; none of it is ours to act on.
            warnings.simplefilter("ignore")
            export_model(checkpoint("sd1"), folder, target="portable", exporter="optimum")

    return made_once("export-optimum", export)


@pytest.fixture
def damaged(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of sd1 to damage."""
    return Path(shutil.copytree(checkpoint("sd1"), tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single file of Stable Diffusion 1. Not to be written to."""
    from tests.export.checkpoints.ldm_files import made

    return made("sd1", whole=True).saved(tmp_path_factory.mktemp("single") / "my-model.safetensors")
