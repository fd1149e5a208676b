"""What git may do to files whose bytes are hashed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import sdrt_models
from sdrt.model_folder.manifest import Manifest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
@pytest.mark.parametrize("model", [sdrt_models.path("shapes"), ROOT / "tests" / "models" / "tiny"])
def test_git_changes_no_line_ending_of_a_model(model: Path) -> None:
    files = [str(model / name) for name in ("sdrt.json", *Manifest.read(model).files)]
    asked = ["git", "check-attr", "text", "--", *files]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if not line.endswith(": text: unset")] == []
