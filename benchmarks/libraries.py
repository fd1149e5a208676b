"""This script prints the folders of the CUDA and cuDNN libraries in this interpreter's packages.

    export LD_LIBRARY_PATH=$(python -m benchmarks.libraries)

torch finds them by itself. ONNX Runtime looks only beside its own package, and then where the system's loader looks.
When it is in another folder than torch, it does not find torch's libraries, unless the process imported torch before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["folders"]

PATTERNS = ("nvidia/*/lib", "torch/lib")


def folders(path: Iterable[str]) -> list[str]:
    """The folders with libraries under the entries of a Python `path`, in its order.

    This does not import `nvidia`. It is a namespace package with pieces in several entries, and one entry with an
    `__init__.py` would hide the others.
    """
    found = [
        str(folder)
        for entry in dict.fromkeys(map(os.path.abspath, path))
        for pattern in PATTERNS
        for folder in sorted(Path(entry).glob(pattern))
        if any(folder.glob("*.so*"))
    ]
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    before = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    # The folders that the user set stay first.
    print(os.pathsep.join(dict.fromkeys([*before, *folders(sys.path[1:])])))
