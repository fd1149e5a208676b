"""The commands in messages, by where sdrt was installed from."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdrt.common.extras import install_command

HERE = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("record", "command"),
    [
        (None, "pip install 'sdrt[cpu]'"),
        ({"url": HERE.as_uri(), "dir_info": {"editable": True}}, f"pip install -e '{HERE}[cpu]'"),
        ({"url": HERE.as_uri(), "dir_info": {}}, f"pip install '{HERE}[cpu]'"),
        ({"url": (HERE / "gone").as_uri(), "dir_info": {}}, "pip install 'sdrt[cpu]'"),
        ({"url": "https://example.org/sdrt.whl", "archive_info": {}}, "pip install 'sdrt[cpu]'"),
        ("text", "pip install 'sdrt[cpu]'"),
    ],
)
def test_the_command_that_installs_an_extra(
    record: Any, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = None if record is None else json.dumps(record)
    found = SimpleNamespace(read_text=lambda name: text if name == "direct_url.json" else None)
    monkeypatch.setattr(metadata, "distribution", lambda name: found)
    assert install_command("cpu") == command
