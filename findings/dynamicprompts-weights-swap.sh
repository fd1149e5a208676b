#!/usr/bin/env bash
# dynamicprompts 0.31.0: when a variant takes several options, the weights of the others change places.
#
# One would expect of {2$$1::a|9::b|1::c}: if c is taken first, the second is b nine times as often as a, because the
# documentation says that options are chosen by weight and without replacement.
#
# What happens: after a choice, the library removes the first weight that equals the chosen one, not the one at its place.
# When c (weight 1) is taken, the weight of a (also 1) goes, so a inherits the 9 of b, and b the 1 of c. "c,a" comes nine
# times as often as "c,b".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dynamicprompts==0.31.0
"$folder/venv/bin/python" - <<'PY'
from collections import Counter
from importlib.metadata import version

from dynamicprompts.generators import RandomPromptGenerator

found = Counter(RandomPromptGenerator(seed=1).generate("{2$$1::a|9::b|1::c}", 4000))
print("dynamicprompts", version("dynamicprompts"), dict(found))
print(f"after c: {found['c,b']} times b, which has the weight 9, and {found['c,a']} times a, which has the weight 1")
raise SystemExit(found["c,a"] < 3 * found["c,b"])
PY
