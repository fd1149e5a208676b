"""Record `a1111.json`: what A1111's web UI makes of prompts, read with a checkout of it.

    python -m venv build/a1111 && build/a1111/bin/pip install lark==1.1.2
    build/a1111/bin/python -m tools.goldens.record_a1111 PATH/TO/stable-diffusion-webui

A checkout of Forge serves too, because its parser is the same. lark 1.1.2 is the version that A1111 1.10 pins. It
resolves what is ambiguous in A1111's grammar by the hashes of texts, which Python draws anew for each process. So every
prompt is read in several processes, and those whose result is not the same in all of them are left out: they have
brackets that close nothing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

from tools.goldens.a1111_prompts import prompts

OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "a1111.json"
STEPS, HIRES_STEPS = 8, 5
PROMPTS, SEED, PROCESSES = 500, 16, 12


def parser(checkout: Path) -> Any:
    """Import A1111's parser. It imports torch, but none of the functions here use it."""
    sys.modules.setdefault("torch", types.ModuleType("torch"))
    spec = importlib.util.spec_from_file_location("a1111", checkout / "modules" / "prompt_parser.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(a1111: Any, text: str) -> dict[str, Any]:
    """Return what A1111 makes of a prompt: its schedules in both passes, its weights and its parts."""
    return {
        "first": a1111.get_learned_conditioning_prompt_schedules([text], STEPS)[0],
        "hires": a1111.get_learned_conditioning_prompt_schedules([text], STEPS, HIRES_STEPS)[0],
        "weights": weights(a1111, text),
        "parts": parts(a1111, text),
    }


def weights(a1111: Any, text: str) -> Any:
    """Return the texts with their weights, or None where A1111 fails."""
    try:
        found = a1111.parse_prompt_attention(text)
    except ValueError:
        return None
    return [[said, round(weight, 9)] for said, weight in found]


def parts(a1111: Any, text: str) -> Any:
    indices, texts, _ = a1111.get_multicond_prompt_list([text])
    return [[texts[index], weight] for index, weight in indices[0]]


def in_another_process(checkout: Path, seed: int) -> Any:
    command = [sys.executable, "-m", __spec__.name, str(checkout), "--print"]
    made = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": str(seed)}, stdout=subprocess.PIPE, check=True
    )
    return json.loads(made.stdout)


def main() -> None:
    checkout = Path(sys.argv[1])
    texts = prompts(PROMPTS, SEED)
    if "--print" in sys.argv:
        a1111 = parser(checkout)
        print(json.dumps([read(a1111, text) for text in texts]))
        return
    runs = [in_another_process(checkout, seed) for seed in range(PROCESSES)]
    same = {
        text: results[0]
        for text, *results in zip(texts, *runs, strict=True)
        if all(result == results[0] for result in results)
    }
    lines = ",\n".join(
        f"{json.dumps(text)}: {json.dumps(result, separators=(',', ':'))}" for text, result in same.items()
    )
    OUTPUT.write_text(f'{{"steps": {STEPS}, "hires_steps": {HIRES_STEPS}, "prompts": {{\n{lines}\n}}}}\n')
    print(f"{OUTPUT.name}: {len(same)} of {len(texts)} prompts, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
