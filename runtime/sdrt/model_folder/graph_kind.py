"""Which of a component's graphs is meant: the whole one, the VAE's in stages, the U-Net's with more inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = [
    "CONTROLLED_GRAPH",
    "FEATURED_GRAPH",
    "NO_MORE",
    "STAGES_GRAPH",
    "WHOLE_GRAPH",
    "GraphKind",
    "ImageInput",
    "MoreInputs",
]


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """Tokens that the U-Net takes from images.

    Attributes:
        adapter: the number of the IP-Adapter whose projections read them. Several inputs may have the same.
        width: the width of its tokens.
        masked: whether only a part of the image sees them.
        file: what identifies the weights of the adapter, so that no other one is taken for it.
    """

    adapter: int
    width: int
    masked: bool = False
    file: str = ""


@dataclass(frozen=True, kw_only=True)
class MoreInputs:
    """What a U-Net's graph takes beside the inputs that its config asks for. It is false without any.

    The weights are those of the plain graph, and with `images` the projections of IP-Adapters.

    Attributes:
        residuals: whether it adds what ControlNets give.
        features: whether it adds what T2I-Adapters give.
        images: the tokens that it takes from images.
    """

    residuals: bool = False
    features: bool = False
    images: tuple[ImageInput, ...] = ()

    def __bool__(self) -> bool:
        return self.is_controlled or bool(self.images)

    @property
    def is_controlled(self) -> bool:
        """Whether it adds anything that comes of control images."""
        return self.residuals or self.features

    def has(self, name: str) -> bool:
        """Tell whether an input of the graph is one of these, by its name."""
        is_residual = name.startswith(("down_block_additional_residual_", "mid_block_additional_residual"))
        is_feature = name.startswith(
            ("down_intrablock_additional_residual_", "mid_intrablock_additional_residual")
        )
        is_image = name.startswith(("image_tokens_", "image_scales_", "image_mask_"))
        is_control = (self.residuals and is_residual) or (self.features and is_feature)
        return is_control or (bool(self.images) and is_image)


NO_MORE = MoreInputs()
"""The inputs that the config asks for, and no more."""


@dataclass(frozen=True, kw_only=True)
class GraphKind:
    """One of a component's graphs.

    Attributes:
        stages: whether it computes in stages, for tiles. Only the VAE has such a graph.
        inputs: what it takes beside its usual inputs. Only the U-Net has such graphs.
        wide: whether it computes in float32 though the component is in float16. Others have no such graph.
    """

    stages: bool = False
    inputs: MoreInputs = NO_MORE
    wide: bool = False

    @property
    def widened(self) -> GraphKind:
        """The graph that computes in float32 instead."""
        return replace(self, wide=True)

    @property
    def narrowed(self) -> GraphKind:
        """The graph that computes in the component's own precision."""
        return replace(self, wide=False)

    @property
    def is_stored(self) -> bool:
        """Whether model folders may have it. Of the graphs for image prompts, that is the one without masks."""
        images = self.inputs.images
        in_order = [one.adapter for one in images] == list(range(len(images)))
        return in_order and not any(one.masked for one in images)

    @property
    def file(self) -> str:
        """The name of its file in a model folder. If none has it, the name is only for messages."""
        parts = {
            "stages": self.stages,
            "prompted": bool(self.inputs.images),
            "controlled": self.inputs.residuals,
            "featured": self.inputs.features,
        }
        name = "_".join(part for part, has_it in parts.items() if has_it) or "model"
        return f"{name}_fp32.onnx" if self.wide else f"{name}.onnx"


WHOLE_GRAPH, STAGES_GRAPH = GraphKind(), GraphKind(stages=True)
"""A component's usual graph, and the VAE's in stages."""
CONTROLLED_GRAPH = GraphKind(inputs=MoreInputs(residuals=True))
FEATURED_GRAPH = GraphKind(inputs=MoreInputs(features=True))
"""The U-Net's graphs for ControlNets, and for T2I-Adapters."""
