#!/usr/bin/env bash
# diffusers: at some sizes, the mask of an IP-Adapter is laid over the U-Net's pixels in rows of another length.
#
# One would expect: for each attention, the mask is resized to the height and width that the image has there. An image of
# 1024x520 pixels has 16x9 pixels at the lowest level, so a mask that is white on the left has a white left half there.
# What happens: the attention knows only how many pixels there are. `IPAdapterMaskProcessor.downsample` guesses the
# height from the mask's proportions, rounds it down, and adds one only if the number of pixels is not a multiple of it.
# 144 pixels are a multiple of 8, so the mask becomes 18x8 in place of 16x9. Its values are then read in rows of 16, and
# each row's white part begins two pixels further on. The warning about proportions is not printed, because 18 * 8 is
# 144, too. At 1024x512 all is right.
#
# Exits with 1 when the behaviour changes. Downloads torch.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check diffusers==0.39.0 torch==2.13.0 numpy==2.2.6 pillow==12.0.0
"$work/venv/bin/python" - <<'PY' 2>/dev/null
import sys

import diffusers
import numpy as np
import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from PIL import Image


def at_lowest_level(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mask of the left half as the attention gets it, and as it should be, in rows of the level's width."""
    white_left = np.zeros((height, width), np.uint8)
    white_left[:, : width // 2] = 255
    mask = IPAdapterMaskProcessor().preprocess(Image.fromarray(white_left), height=height, width=width)
    rows, columns = -(-height // 64), -(-width // 64)
    got = IPAdapterMaskProcessor.downsample(mask[:, 0], 1, rows * columns, 1).reshape(rows, columns)
    expected = torch.nn.functional.interpolate(mask, size=(rows, columns), mode="bicubic")[0, 0]
    return got, expected


print("diffusers", diffusers.__version__, "torch", torch.__version__)
right, expected = at_lowest_level(512, 1024)
print("1024x512: differs from the resized mask by", float((right - expected).abs().max()))
wrong, wanted = at_lowest_level(520, 1024)
print("1024x520, white pixels of each row:")
for row in wrong:
    print("  " + "".join("#" if value > 0.5 else "." for value in row))
is_as_described = torch.equal(right, expected) and float((wrong - wanted).abs().max()) > 0.9
sys.exit(0 if is_as_described else 1)
PY
