"""Names that a program gives to LoRAs: whatever they contain, `--from` makes the image again."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrt import StableDiffusionPipeline
from sdrt.adapters.lora_folder import short_hash
from tests.adapters import write_lora
from tests.cli.commands import pixels, run, told

NAMES = (
    *("a\nb", "a,b", "a:b", "a, b: 0123456789ab", "<a>", "a\r\n\tb", ",", ":", "\n"),
    *('a"b', " a ", "a\x00b", "a\u2028b", "ä=1"),
)


@pytest.fixture
def pipeline(folder: Path, tiny_model: Path) -> StableDiffusionPipeline:
    made = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=2)
    shapes = {name: made.model.parameters(name) for name in ("unet", "text_encoder")}
    (folder / "loras").mkdir()
    for seed, name in enumerate(("ink", "oil")):
        write_lora(folder / "loras" / f"{name}.safetensors", shapes, seed=seed, scale=1)
    return made


@pytest.mark.full
def test_an_image_of_any_name_is_made_again(pipeline: StableDiffusionPipeline, model: str) -> None:
    for number, name in enumerate(NAMES):
        pipeline.unload_lora_weights()
        pipeline.load_lora_weights("loras/ink.safetensors", adapter_name=name)
        pipeline.load_lora_weights("loras/oil.safetensors", adapter_name="oil")
        pipeline.set_adapters([name, "oil"], [0.5, -1])
        made = pipeline("a cat", seed=1, num_inference_steps=1, width=64, height=64)
        made.save(f"{number}.png")
        text = told(f"{number}.png")
        assert text.prompt.startswith("a cat<lora:")
        hashes = [short_hash(Path("loras", f"{one}.safetensors")) for one in ("ink", "oil")]
        said = text.settings["Lora hashes"]
        assert (said.count(": "), said.endswith(f": {hashes[0]}, oil: {hashes[1]}")) == (2, True), name
        result = run(
            "generate", "--from", f"{number}.png", "-m", model, "--lora-dir", "loras", "-o", "again.png", "-f"
        )
        assert result.exit_code == 0, (name, result.stderr)
        assert pixels("again.png") == pixels(f"{number}.png"), name
