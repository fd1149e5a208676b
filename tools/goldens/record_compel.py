"""Record `compel.npz`: Compel's embeddings of prompts with the text encoder of `tests/models/tiny`.

Usage, where the export extra is installed:

    pip install --no-deps compel==2.2.1 pyparsing
    python -m tools.goldens.record_compel

It takes 2.2.1, because later releases cannot blend (https://github.com/damian0815/compel/issues/130).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compel import Compel, DownweightMode, ReturnedEmbeddingsType
from transformers import CLIPTokenizerFast

from sdrt_export.checkpoints.random import RandomCheckpoint
from sdrt_export.tokenizer import write_byte_tokenizer
from sdrt_export.verify.modules import load_part
from tools.goldens.compel_cases import CASES

OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "compel.npz"
RETURNED = {
    None: ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED,
    1: ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NORMALIZED,
}


def compel(folder: Path, clip_skip: int | None) -> Any:
    """Compel with the weights of `tests/models/tiny`, for texts of any length, in its only mode without a mask."""
    write_byte_tokenizer(folder / "scratch", folder / "tokenizer", 77)
    return Compel(
        tokenizer=CLIPTokenizerFast.from_pretrained(folder / "tokenizer"),
        text_encoder=load_part(RandomCheckpoint(architecture="tiny", seed=0), "text_encoder"),
        truncate_long_prompts=False,
        downweight_mode=DownweightMode.REMOVE,
        returned_embeddings_type=RETURNED[clip_skip],
    )


def main() -> None:
    arrays = {}
    for name, (prompt, clip_skip) in CASES.items():
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            arrays[name] = compel(Path(folder), clip_skip)(prompt)[0].numpy()
    np.savez_compressed(OUTPUT, **arrays)
    print(f"{OUTPUT.name}: {len(arrays)} arrays, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
