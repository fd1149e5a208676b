"""This script prints where the packages of this interpreter keep the libraries of CUDA and cuDNN.

    export LD_LIBRARY_PATH=$(python -m benchmarks.libraries)

torch finds them by itself. ONNX Runtime looks beside its own package only, and then where the system's loader looks.
In a folder of its own it does not see the libraries of torch, unless the process imported torch before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["folders"]

PATTERNS = ("nvidia/*/lib", "torch/lib")


def folders(path: Iterable[str]) -> list[str]:
    """Those under the entries of a Python `path`, its order kept, that hold a library.

    Not by importing `nvidia`: it is a namespace package that several entries may have a piece of, unless one of them
    has an `__init__.py`, which then hides the others.
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
    # What was there stays first: who set it knew why.
    print(os.pathsep.join(dict.fromkeys([*before, *folders(sys.path[1:])])))
