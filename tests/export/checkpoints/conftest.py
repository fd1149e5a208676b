"""Single files of every kind, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.checkpoints.ldm_files import Made, made
from tests.export.checkpoints.single_files import KINDS


@pytest.fixture(scope="package")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Made]]:
    folder = tmp_path_factory.mktemp("files")
    return {kind: ((m := made(kind)).saved(folder / f"{kind}.safetensors"), m) for kind in KINDS}
