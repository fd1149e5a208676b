"""The server against its own description: whatever schemathesis sends, no answer is a 500."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.serve.core.running import serving

pytestmark = pytest.mark.full


def test_nothing_that_is_sent_is_a_server_error(tmp_path: Path) -> None:
    command = shutil.which("schemathesis", path=sysconfig.get_path("scripts"))
    assert command, "schemathesis is in the extra `test`"
    with serving(tmp_path, "--max-queue", "8", "--max-steps", "3", "--max-pixels", "65536") as server:
        done = subprocess.run(
            [
                *(command, "run", f"{server.url}/openapi.json", "--checks", "not_a_server_error"),
                *("--max-examples", "40", "--seed", "1", "--generation-database", "none", "--no-color"),
                *("--phases", "examples,coverage,fuzzing", "--continue-on-failure"),
                # Its own ten seconds are few for an image on a busy machine.
                *("--request-timeout", "300"),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "DO_NOT_TRACK": "1"},
            timeout=900,
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        with server.client() as client:
            assert client.get("/readyz").status_code == 200
        assert "Traceback" not in server.log.read_text()
