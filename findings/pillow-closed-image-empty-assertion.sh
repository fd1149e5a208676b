#!/usr/bin/env bash
# Pillow: an image that is used after its `with` block.
#
# One would expect the same error for every format, the one that `close()` leads to: ValueError, "Operation on closed image".
#
# What happens depends on the format: a PNG or a BMP raises an AssertionError with no message at all (before 13.0, an
# AttributeError about NoneType), and a WebP works as if nothing had been closed. So a program cannot catch the mistake by
# its type, nor show its message.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import PIL
from PIL import Image


def outcome(name, close):
    Image.new("RGB", (8, 8)).save(name)
    if close:
        image = Image.open(name)
        image.close()
    else:
        with Image.open(name) as image:
            pass
    try:
        image.load()
    except Exception as error:
        return f"{type(error).__name__} {str(error)!r}"
    return "works"


print("Pillow", PIL.__version__)
found = {name: (outcome(name, False), outcome(name, True)) for name in ("a.png", "a.bmp", "a.webp")}
for name, (after_with, after_close) in found.items():
    print(f"{name}: after with {after_with}; after close() {after_close}")
assert {after_close for _, after_close in found.values()} == {"ValueError 'Operation on closed image'"}
assert [after_with for after_with, _ in found.values()] == ["AssertionError ''", "AssertionError ''", "works"]
PYTHON
