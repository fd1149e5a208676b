"""IP-Adapters' projections and the U-Net with image prompts, beside diffusers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import onnxruntime as ort
import pytest
import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from safetensors.torch import load_file, save_file

from sdrt.errors import IntegrityError, ModelNotFoundError, UnsupportedModelError
from sdrt.model_folder.graph_kind import ImageInput, MoreInputs
from sdrt_export.architectures.image_projection import TOKENS, image_projection
from sdrt_export.architectures.image_prompts import image_prompt_levels
from sdrt_export.architectures.unet import unet as write_unet
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.checkpoints.ip_adapter import IpAdapter, open_ip_adapter
from sdrt_export.evaluator import Evaluator
from sdrt_export.graphs.files import write_graphs
from sdrt_export.graphs.graph import Graph
from sdrt_export.graphs.memory import bind
from sdrt_export.targets import TARGETS
from tests.export.built import config_of
from tests.parity.checkpoints import UNET, VARIANTS, randomise
from tests.parity.ip_adapters import EMBEDS, PATCH, adapter_file
from tests.parity.xl_checkpoints import XL_VARIANTS

# float32 sums in another order, as for the U-Net alone.
LIMIT = 2e-5
KINDS = ("base", "plus", "plus of diffusers")
# Not "mixed": with `only_cross_attention`, diffusers gives its self-attention the text and the images, and fails.
LAYOUTS = {**{name: VARIANTS[name].unet for name in ("sd1", "sd2")}, "xl": XL_VARIANTS["xl"].unet}


def theirs_and_files(variant: str, folder: Path, kinds: tuple[str, ...]) -> tuple[Any, list[Path]]:
    """diffusers' U-Net with IP-Adapters of these kinds, and their files."""
    module = randomise(diffusers.UNet2DConditionModel(**(UNET | LAYOUTS[variant])), 5)
    files = [
        adapter_file(folder / f"{number}.safetensors", module, kind, number)
        for number, kind in enumerate(kinds)
    ]
    states = []
    for file in files:
        parts: dict[str, dict[str, Any]] = {"image_proj": {}, "ip_adapter": {}}
        for name, tensor in load_file(file).items():
            part, _, own = name.partition(".")
            parts[part][own] = tensor
        states.append(parts)
    module._load_ip_adapter_weights(states, low_cpu_mem_usage=False)
    return module.eval(), files


def run(graph: Graph, tensors: Mapping[str, Any], target: str, output: str, feeds: Mapping[str, Any]) -> Any:
    if target == "cuda":
        folder = Path(tempfile.mkdtemp())
        write_graphs(folder, {"model.onnx": graph}, tensors, narrow=False)
        (made,) = Evaluator(folder / "model.onnx").run(dict(feeds), [output])
        shutil.rmtree(folder)
        return made
    bound = bind(graph, tensors, portable=target == "portable")
    options = ort.SessionOptions()
    options.add_external_initializers(list(bound.weights), list(bound.values().values()))
    session = ort.InferenceSession(bound.content(), options, providers=["CPUExecutionProvider"])
    return session.run([output], dict(feeds))[0]


def drawn(*shape: int) -> torch.Tensor:
    """Noise that is the same in every run."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def unet_values(module: Any) -> dict[str, Any]:
    """The config without the adapters, which diffusers notes in it."""
    return config_of(module) | {"encoder_hid_dim_type": None}


def test_a_projection_equals_diffusers(tmp_path: Path) -> None:
    for kind in KINDS:
        module, (file,) = theirs_and_files("sd1", tmp_path, (kind,))
        adapter = open_ip_adapter(file, unet_values(module))
        assert adapter.projection.is_plus == (kind != "base")
        graph = Graph("projection")
        image_projection(adapter.projection, TARGETS["cpu"].layers(graph))
        assert graph.sources == {name: adapter.tensors.shape(name) for name in adapter.tensors}
        embeds = drawn(*((3, EMBEDS) if kind == "base" else (3, 7, PATCH)))
        (layer,) = module.encoder_hid_proj.image_projection_layers
        with torch.no_grad():
            expected = layer(embeds).numpy()
        for target in ("cpu", "portable"):
            graph = Graph("projection")
            image_projection(adapter.projection, TARGETS[target].layers(graph))
            ours = run(graph, adapter.tensors, target, TOKENS, {"image_embeds": embeds.numpy()})
            assert ours.shape == expected.shape
            assert np.abs(ours - expected).max() <= LIMIT * np.abs(expected).max()


def unet_feeds(module: Any) -> dict[str, torch.Tensor]:
    config, generator = module.config, torch.Generator().manual_seed(2)
    made = {
        "sample": torch.randn((2, config.in_channels, 8, 10), generator=generator),
        "timestep": torch.tensor(451.0),
        "encoder_hidden_states": torch.randn((2, 7, config.cross_attention_dim), generator=generator),
    }
    if config.addition_embed_type == "text_time":
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        made["text_embeds"] = torch.randn((2, width), generator=generator)
        made["time_ids"] = torch.tensor([[64.0, 80, 0, 0, 64, 80]] * 2)
    return made


def random_residuals(module: Any, shape: torch.Size) -> dict[str, Any]:
    """Residuals for latents of this shape, each as large as what diffusers' U-Net adds it to."""
    batch, _, *sides = shape
    sizes = [(module.config.block_out_channels[0], *sides)]
    for block in module.down_blocks:
        sizes += [(resnet.out_channels, *sides) for resnet in block.resnets]
        if block.downsamplers is not None:
            sides = [(side + 1) // 2 for side in sides]
            sizes.append((block.resnets[-1].out_channels, *sides))
    names = [f"down_block_additional_residual_{index}" for index in range(len(sizes))]
    random = np.random.default_rng(3)
    return {
        name: random.standard_normal((batch, *size)).astype(np.float32)
        for name, size in zip([*names, "mid_block_additional_residual"], [*sizes, sizes[-1]], strict=True)
    }


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("variant", LAYOUTS)
def test_a_unet_with_image_prompts_equals_diffusers(variant: str, target: str, tmp_path: Path) -> None:
    """Two adapters, of which one has two images, and a scale of its own for each cross-attention."""
    module, files = theirs_and_files(variant, tmp_path, ("base", "plus"))
    adapters = [open_ip_adapter(file, unet_values(module)) for file in files]
    feeds = unet_feeds(module)
    given = [drawn(2, 2, EMBEDS), drawn(2, 1, 7, PATCH)]
    layers, scales = len(adapters[0].layers), np.random.default_rng(1)
    own = [scales.uniform(0.3, 1.2, layers).astype(np.float32) for _ in adapters]
    set_scales(module, own)
    plain = {name: value for name, value in feeds.items() if name not in ("text_embeds", "time_ids")}
    extra = {name: feeds[name] for name in ("text_embeds", "time_ids") if name in feeds}
    with torch.no_grad():
        expected = module(**plain, added_cond_kwargs={"image_embeds": given, **extra}).sample.numpy()
        tokens = module.encoder_hid_proj(given)
    arrays = {name: value.numpy() for name, value in feeds.items()}
    for number, one in enumerate(tokens):
        arrays[f"image_tokens_{number}"] = one.flatten(1, 2).numpy()
        arrays[f"image_scales_{number}"] = own[number]
    graph, tensors = prompted(module, adapters, target)
    ours = run(graph, tensors, target, "out_sample", arrays)
    assert np.abs(ours - expected).max() <= LIMIT * np.abs(expected).max()
    # The same graph can have residuals of ControlNets too.
    residuals = random_residuals(module, feeds["sample"].shape)
    down = [torch.from_numpy(value) for name, value in residuals.items() if name.startswith("down_block")]
    middle = torch.from_numpy(residuals["mid_block_additional_residual"])
    with torch.no_grad():
        both = module(
            **plain,
            added_cond_kwargs={"image_embeds": given, **extra},
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample.numpy()
    graph, tensors = prompted(module, adapters, target, residuals=True)
    ours = run(graph, tensors, target, "out_sample", arrays | residuals)
    assert np.abs(ours - both).max() <= LIMIT * np.abs(both).max()
    assert np.abs(both - expected).max() > 0.01
    graph, tensors = prompted(module, adapters, target)
    # Without their effect, the result is the plain U-Net's, bit for bit.
    for number in range(2):
        arrays[f"image_scales_{number}"] = np.zeros(layers, np.float32)
    without = run(graph, tensors, target, "out_sample", arrays)
    alone = Graph("unet")
    write_unet(UNetConfig.of(unet_values(module)), TARGETS[target].layers(alone))
    named = {name: value for name, value in arrays.items() if not name.startswith("image_")}
    np.testing.assert_array_equal(without, run(alone, tensors, target, "out_sample", named))
    assert np.abs(without - expected).max() > 0.01


@pytest.mark.parametrize("variant", ["sd1", "xl"])
def test_images_with_masks_are_seen_as_in_diffusers(variant: str, tmp_path: Path) -> None:
    """Two images of one adapter, each in its part of the image, which has odd sizes at the lower levels."""
    module, files = theirs_and_files(variant, tmp_path, ("plus",))
    adapters = [open_ip_adapter(files[0], unet_values(module))]
    feeds = unet_feeds(module) | {"sample": drawn(2, 4, 6, 10)}
    given, scales = drawn(2, 2, 7, PATCH), [0.7, 1.3]
    masks = torch.rand((1, 2, 48, 80), generator=torch.Generator().manual_seed(4)).round()
    layers = len(adapters[0].layers)
    for processor in (one for name, one in module.attn_processors.items() if "attn2" in name):
        processor.scale = [scales]
    plain = {name: value for name, value in feeds.items() if name not in ("text_embeds", "time_ids")}
    extra = {name: feeds[name] for name in ("text_embeds", "time_ids") if name in feeds}
    with torch.no_grad():
        expected = module(
            **plain,
            added_cond_kwargs={"image_embeds": [given], **extra},
            cross_attention_kwargs={"ip_adapter_masks": [masks]},
        ).sample.numpy()
        (tokens,) = module.encoder_hid_proj([given])
    config = UNetConfig.of(unet_values(module))
    arrays = {name: value.numpy() for name, value in feeds.items()}
    for number in range(2):
        arrays[f"image_tokens_{number}"] = tokens[:, number].numpy()
        arrays[f"image_scales_{number}"] = np.full(layers, scales[number], np.float32)
        for level in image_prompt_levels(config):
            pixels = -(-6 // 2**level) * -(-10 // 2**level)
            small = IPAdapterMaskProcessor.downsample(masks[:, number], 1, pixels, 1)
            arrays[f"image_mask_{number}_{level}"] = small.numpy()
    width = adapters[0].projection.width
    inputs = [ImageInput(adapter=0, width=width, masked=True)] * 2
    graph, tensors = prompted(module, adapters, "cpu", inputs)
    ours = run(graph, tensors, "cpu", "out_sample", arrays)
    assert np.abs(ours - expected).max() <= LIMIT * np.abs(expected).max()


def set_scales(module: Any, scales: list[Any]) -> None:
    processors = [one for name, one in module.attn_processors.items() if "attn2" in name]
    for layer, processor in enumerate(processors):
        processor.scale = [float(one[layer]) for one in scales]


def plain_inputs(adapters: list[IpAdapter]) -> list[ImageInput]:
    return [ImageInput(adapter=number, width=one.projection.width) for number, one in enumerate(adapters)]


def prompted(
    module: Any,
    adapters: list[IpAdapter],
    target: str,
    inputs: list[ImageInput] | None = None,
    *,
    residuals: bool = False,
) -> tuple[Graph, dict[str, Any]]:
    graph = Graph("unet")
    config = UNetConfig.of(unet_values(module))
    more = MoreInputs(residuals=residuals, images=tuple(inputs or plain_inputs(adapters)))
    write_unet(config, TARGETS[target].layers(graph), more)
    tensors = {name: value.numpy() for name, value in module.state_dict().items() if "_ip." not in name}
    for number, adapter in enumerate(adapters):
        tensors |= {name: source.array() for name, source in adapter.in_unet(number).items()}
    assert set(graph.sources) == {name for name in tensors if not name.startswith("encoder_hid_proj")}
    return graph, tensors


def renamed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return apply


def with_nan(tensors: dict[str, Any]) -> None:
    tensors["ip_adapter.3.to_v_ip.weight"][2, 1] = float("nan")


BROKEN: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "nan": (renamed(with_nan), IntegrityError, "attn2.processor.to_v_ip.0.weight contains NaN or infinity"),
    "a lost layer": (
        renamed(lambda tensors: tensors.pop("ip_adapter.3.to_k_ip.weight")),
        UnsupportedModelError,
        "('ip_adapter.3.to_k_ip.weight' is missing): expected 4, as this model's U-Net has",
    ),
    "a layer too many": (
        renamed(lambda tensors: tensors.update({"ip_adapter.31.to_k_ip.weight": torch.zeros(2, 2)})),
        UnsupportedModelError,
        "('ip_adapter.31.to_k_ip.weight' is left over)",
    ),
    "another family": (
        renamed(
            lambda tensors: tensors.update(
                {
                    "image_proj.proj.weight": torch.zeros(4 * 48, EMBEDS),
                    "image_proj.norm.weight": torch.zeros(48),
                }
            )
        ),
        UnsupportedModelError,
        "makes image tokens 48 wide: expected 32, as this model's U-Net takes: the adapter is for another family",
    ),
    "face id": (
        renamed(lambda tensors: tensors.update({"image_proj.proj.2.weight": torch.zeros(2, 2)})),
        UnsupportedModelError,
        "is an IP-Adapter of the kind FaceID: expected an IP-Adapter of the kind base or plus",
    ),
    "face id plus": (
        renamed(
            lambda tensors: tensors.update(
                {"image_proj.perceiver_resampler.proj_in.weight": torch.zeros(2, 2)}
            )
        ),
        UnsupportedModelError,
        "is an IP-Adapter of the kind FaceID plus",
    ),
    "full face": (
        renamed(lambda tensors: tensors.update({"image_proj.proj.3.weight": torch.zeros(2)})),
        UnsupportedModelError,
        "is an IP-Adapter of the kind full face",
    ),
    "no adapter": (
        lambda path: save_file({"lora_unet_mid.alpha": torch.zeros(1)}, path),
        ModelNotFoundError,
        "expected an IP-Adapter of the kind base or plus",
    ),
    "no safetensors": (lambda path: path.write_bytes(b"x") and None, UnsupportedModelError, "safetensors"),
    "no norm": (
        renamed(lambda tensors: tensors.pop("image_proj.norm.weight")),
        IntegrityError,
        "lacks image_proj.norm.weight",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_does_not_fit_is_named(case: str, tmp_path: Path) -> None:
    module, (file,) = theirs_and_files("sd1", tmp_path, ("base",))
    damage, error, message = BROKEN[case]
    damage(file)
    with pytest.raises(error) as caught:
        open_ip_adapter(file, unet_values(module))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="pickle"):
        open_ip_adapter(tmp_path / "ip-adapter_sd15.bin", {})
    with pytest.raises(ModelNotFoundError, match="cannot be read"):
        open_ip_adapter(tmp_path / "none.safetensors", {})
