#!/usr/bin/env bash
# numpy: a float16 scalar equals a Python float that it cannot hold.
#
# One would expect: np.float16(160.03) is 160.0, so `np.float16(160.03) == 160.03` is False, as it was with NumPy 1, where
# both sides became float64. So `np.float16(x) == x` looks like a test for whether x survives rounding to float16.
# What happens: since NumPy 2 a Python float takes the type of the NumPy scalar, so 160.03 is rounded to 160.0 before it
# is compared, and the test is always true. float(np.float16(x)) == x compares what one means.
#
# Exits with 1 when the behaviour changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.2.6
"$work/venv/bin/python" - <<'PY'
import sys

import numpy as np

rounded = np.float16(160.03)
same, meant = bool(rounded == 160.03), float(rounded) == 160.03
print("numpy", np.__version__)
print("float(np.float16(160.03)):        ", float(rounded))
print("np.float16(160.03) == 160.03:     ", same)
print("float(np.float16(160.03)) == 160.03:", meant)
sys.exit(0 if (same, meant) == (True, False) else 1)
PY
