"""The options of `sdrt serve --ray`, and what imports Ray."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
from click.testing import CliRunner

from sdrt.cli import main

needs_ray = pytest.mark.skipif(not all(map(find_spec, ("ray", "grpc"))), reason="without Ray Serve")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--min-workers", "2"], "--min-workers has no effect without --ray"),
        (["--models-per-worker", "2"], "--models-per-worker has no effect without --ray"),
        (["--gpus-per-worker", "1"], "--gpus-per-worker has no effect without --ray"),
        (["--ray", "local", "--workers", "2"], "--workers has no effect with --ray"),
        (["--ray", "--max-memory", "6GB"], "--max-memory has no effect with --ray"),
        pytest.param(
            ["--ray", "--min-workers", "3", "--max-workers", "2"],
            "--min-workers is 3: expected at most --max-workers, which is 2",
            marks=needs_ray,
        ),
        pytest.param(
            ["--ray", "--provider", "cpu", "--provider", "cuda"],
            "provider is given several times",
            marks=needs_ray,
        ),
    ],
)
def test_options_that_do_not_go_together(words: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["serve", "--port", "0", *words], prog_name="sdrt")
    assert result.exit_code == 2
    assert said in result.stderr


def test_only_the_process_that_drives_it_imports_ray() -> None:
    code = "import sys, sdrt.serve.server, sdrt.serve.on_ray.workers; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "False\n"
