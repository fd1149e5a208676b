"""PEFT's own LoHa, LoKr, LoRA and DoRA: its saved folder gives the weights that PEFT merges, to 1e-5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt.adapters.adaptation import Adaptation, Weighted
from sdrt.adapters.lora.reader import open_adapter
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from tests.adapter_files import ATTENTION, CONV

peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "LoHa": ("LoHaConfig", {"r": 3, "alpha": 5}),
    "LoHa's effective convolutions": ("LoHaConfig", {"r": 3, "alpha": 5, "use_effective_conv2d": True}),
    "LoHa of several ranks": ("LoHaConfig", {"r": 3, "alpha": 5, "rank_pattern": {"conv1": 2}}),
    "LoHa of several alphas": ("LoHaConfig", {"r": 3, "alpha": 5, "alpha_pattern": {"conv1": 2}}),
    "LoKr": ("LoKrConfig", {"r": 2, "alpha": 5}),
    "LoKr's effective convolutions": ("LoKrConfig", {"r": 1, "alpha": 5, "use_effective_conv2d": True}),
    "LoKr of products": ("LoKrConfig", {"r": 1, "alpha": 3, "decompose_both": True, "decompose_factor": 2}),
    "LoKr of whole halves": ("LoKrConfig", {"r": 16, "alpha": 24}),
    "LoKr of whole halves, with a pattern": (
        "LoKrConfig",
        {"r": 16, "alpha": 24, "rank_pattern": {"conv1": 12}},
    ),
    "LoRA": ("LoraConfig", {"r": 3, "lora_alpha": 5}),
    "rank-stabilised LoRA": ("LoraConfig", {"r": 3, "lora_alpha": 5, "use_rslora": True}),
    "DoRA": ("LoraConfig", {"r": 3, "lora_alpha": 5, "use_dora": True}),
}


def model() -> Any:
    """A linear layer and a convolution, by their names in a U-Net."""
    torch.manual_seed(0)
    root = torch.nn.Module()
    for name, layer in ((ATTENTION, torch.nn.Linear(48, 32)), (CONV, torch.nn.Conv2d(16, 24, 3))):
        *path, last = name.split(".")
        place = root
        for part in path:
            if not hasattr(place, part):
                place.add_module(part, torch.nn.Module())
            place = getattr(place, part)
        place.add_module(last, layer)
    return root


@pytest.mark.parametrize("case", CASES)
def test_a_saved_adapter_gives_the_weights_that_peft_merges(case: str, tmp_path: Path) -> None:
    kind, options = CASES[case]
    base = {name: one.detach().numpy().copy() for name, one in model().named_parameters()}
    ends = {"init_lora_weights": False} if kind == "LoraConfig" else {}
    config = getattr(peft, kind)(target_modules=["to_k", "conv1"], **ends, **options)
    attached = peft.get_peft_model(model(), config)
    with torch.no_grad():
        for name, one in attached.named_parameters():
            if any(part in name for part in ("hada_", "lokr_", "lora_")):
                one.copy_(0.3 * torch.randn_like(one) + (1.0 if "magnitude" in name else 0.0))
    attached.save_pretrained(tmp_path)
    merged = {name: one.detach().numpy() for name, one in attached.merge_and_unload().named_parameters()}
    shapes = {"unet": {name: one.shape for name, one in base.items()}}
    adapter = open_adapter(tmp_path, family=STABLE_DIFFUSION, shapes=shapes)
    assert not adapter.left_over
    adaptation = Adaptation((Weighted(adapter=adapter),))
    for name in (f"{ATTENTION}.weight", f"{CONV}.weight"):
        assert np.abs(merged[name] - base[name]).max() > 0.1
        np.testing.assert_allclose(
            adaptation.changed("unet", name, base[name]), merged[name], rtol=1e-5, atol=1e-5
        )
