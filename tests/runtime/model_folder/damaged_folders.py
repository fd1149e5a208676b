"""Changes to model folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

UNET = "unet/model.onnx"


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
