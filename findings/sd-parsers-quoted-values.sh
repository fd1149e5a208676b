#!/usr/bin/env bash
# sd-parsers 0.6 and a value in quotes that contains ", Seed: 99".
#
# A1111's web UI writes a value with a comma or a colon as a JSON string, and reads it back as one value. One would expect
# a library that reads A1111's text to do the same: seed 5, sampler Euler, and a setting "Hires prompt" of one text.
#
# sd-parsers splits the line at every ", name: " and does not look at the quotes. So words in the quoted prompt of the
# second pass replace the image's own seed and sampler, without an error, and the quoted text is cut.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check sd-parsers==0.6 pillow==12.0.0
cd "$folder"
cat >check.py <<'PY'
from importlib.metadata import version

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sd_parsers import ParserManager

TEXT = (
    "a cat\nSteps: 8, Sampler: Euler, CFG scale: 3, Seed: 5, Size: 64x64, Model: m, "
    'Hires prompt: "a dog, Seed: 99, Sampler: DDIM", Version: v1.10.1'
)
info = PngInfo()
info.add_text("parameters", TEXT)
Image.new("RGB", (8, 8)).save("a.png", pnginfo=info)
found = ParserManager().parse("a.png")
(sampler,) = found.samplers
seen = (sampler.name, sampler.parameters["seed"], found.metadata["Hires prompt"])
print("sd-parsers", version("sd-parsers"))
print("written: sampler Euler, seed 5, Hires prompt 'a dog, Seed: 99, Sampler: DDIM'")
print("read:    sampler {}, seed {}, Hires prompt {!r}".format(*seen))
assert seen == ('DDIM"', "99", '"a dog'), f"the behaviour has changed: {seen}"
PY
venv/bin/python check.py
