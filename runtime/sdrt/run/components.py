"""The components of a model with one configuration. Each is loaded when it is first used."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sdrt.adapters.adaptation import Adaptation
from sdrt.common.notices import Notices
from sdrt.errors import UnsupportedModelError
from sdrt.families import ControlNetSpec, IpAdapterSpec, T2IAdapterSpec, TextEncoderSpec
from sdrt.families.capabilities import whole as whole_number
from sdrt.images.clip_input import ClipInput
from sdrt.model_folder.checker import FEATURE_EXTRACTOR, SAFETY_CHECKER
from sdrt.model_folder.folder import TAESD_DECODER
from sdrt.model_folder.graph_kind import NO_MORE, STAGES_GRAPH, GraphKind, MoreInputs
from sdrt.model_folder.manifest import readable
from sdrt.model_folder.model import IMAGE_ENCODER, Model
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt.onnx.placement import check_target
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component
from sdrt.run.image_encoder import ImageEncoder, ImageProjection
from sdrt.run.int8_models import check_dtype
from sdrt.run.open_graphs import OpenGraphs
from sdrt.run.safety_checker import SafetyChecker
from sdrt.text.encoder import TextEncoder
from sdrt.text.textual_inversion import Inversions
from sdrt.text.tokenizer import Tokenizer
from sdrt.vae.autoencoder import VaeDecoder, VaeEncoder, VaeGraphs
from sdrt.vae.latent_scale import LatentScale
from sdrt.vae.posterior import graph_with_posterior
from sdrt.vae.preview import TaesdPreview
from sdrt.vae.stages import StagedVae

if TYPE_CHECKING:
    from sdrt.request.controls import Control
    from sdrt.request.fitted import FittedRequest

__all__ = ["LoadedComponents"]

MakeGraphs = Callable[[Model, SessionConfig, Notices, "Counter[str]"], OpenGraphs]


class LoadedComponents:
    """The text encoders, the denoiser and the VAE of a model. Each is loaded when it is first used.

    With `low_vram`, loading a component frees the others.

    Args:
        model: the model.
        config: the settings of the sessions.
        notices: receives messages for the user.
        inversions: the words of textual inversions that the text encoder knows.
        float32_retries: counts the runs of each component that were repeated in float32.
        make_graphs: makes the `OpenGraphs`. The exporter's calibration passes its own.

    Raises:
        ProviderError: the provider cannot run the model's target or precision.
        UnsupportedModelError: `vae_tiling` is set, but the model has no VAE for tiles.
    """

    def __init__(
        self,
        model: Model,
        config: SessionConfig,
        notices: Notices,
        inversions: Inversions | None = None,
        float32_retries: Counter[str] | None = None,
        *,
        make_graphs: MakeGraphs = OpenGraphs,
    ) -> None:
        check_target(model.target, model.path, config)
        self._model, self._config, self._notices = model, config, notices
        self._family = model.family
        if config.vae_tiling and model.graph(model.family.vae.decoder, STAGES_GRAPH) is None:
            raise UnsupportedModelError.advised(
                f"vae_tiling is set, but {model.path} was exported without the VAE in stages",
                "leave it out, or export the checkpoint again with this version of sdrt export",
                component=model.family.vae.decoder,
                path=model.path,
                argument="vae_tiling",
            )
        check_dtype(model, config, notices)
        self.low_vram = bool(config.low_vram)
        self._inversions = inversions
        retries = Counter() if float32_retries is None else float32_retries
        self._graphs = make_graphs(model, config, notices, retries)
        self._forget_vae()

    def adapted(self, adaptation: Adaptation) -> LoadedComponents:
        """These components with the changes of `adaptation`. Those that it does not change are shared."""
        made = copy.copy(self)
        made._model, made._graphs = self._model.adapted(adaptation), self._graphs.adapted(adaptation)
        made._forget_vae()
        return made

    def of_model(self, model: Model) -> LoadedComponents:
        """These components for the same model with other IP-Adapters. Those that both have are shared."""
        made = copy.copy(self)
        made._model, made._graphs = model, self._graphs.of_model(model)
        made._forget_vae()
        return made

    @property
    def adaptation(self) -> Adaptation:
        """The adapters that change the components."""
        return self._model.adaptation

    def _forget_vae(self) -> None:
        # The VAE's objects hold no graph themselves. They refer to the open graphs, which must not keep them in turn.
        self._vae_encoder: VaeEncoder | None = None
        self._vae_decoder: VaeDecoder | None = None

    @property
    def config(self) -> SessionConfig:
        """The settings of the sessions."""
        return self._config

    @property
    def embedding_files(self) -> tuple[str, ...]:
        """The names of the files from which textual inversions were read."""
        return () if self._inversions is None else self._inversions.files

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the textual inversions."""
        return () if self._inversions is None else self._inversions.tokens

    def text_encoder(self, number: int = 0) -> TextEncoder:
        """Return one of the family's text encoders, counted from 0."""
        spec = self._family.text_encoders[number]
        return self._graphs.get(spec.component, lambda: self._make_text_encoder(spec, number))

    def denoiser(self, more: MoreInputs = NO_MORE) -> Component:
        """The graph of the denoiser, such as the U-Net, with `more` inputs than usual. `Denoiser` runs it."""
        name = self._family.denoiser.component
        return self._graphs.get(name, lambda: self._make_denoiser(more), more)

    def load_denoiser_ahead(self, more: MoreInputs = NO_MORE) -> None:
        """Begin to load the denoiser in another thread, while this one does something else."""
        self._graphs.load_ahead(self._family.denoiser.component, lambda: self._make_denoiser(more), more)

    def controlnet(self, spec: ControlNetSpec | T2IAdapterSpec) -> Component:
        """The graph of a ControlNet or T2I-Adapter."""
        return self._graphs.get(spec.component, lambda: self._make_controlnet(spec))

    @property
    def denoiser_config(self) -> dict[str, Any]:
        """The config of the denoiser."""
        return self._model.component_config(self._family.denoiser.component)

    def controls_of(self, request: FittedRequest) -> list[tuple[ControlNetSpec | T2IAdapterSpec, Control]]:
        """What guides the denoiser in a request, each with what it does. What has scale 0 does not."""
        if not request.controls:
            return []
        every = zip(self._model.capabilities.controlnets, request.controls, strict=True)
        return [(spec, control) for spec, control in every if control.scale]

    @property
    def image_encoder(self) -> ImageEncoder:
        """CLIP's vision encoder, which sees image prompts. Models with IP-Adapters have it."""
        graphs, model = self._graphs, self._model
        return graphs.get(IMAGE_ENCODER, lambda: ImageEncoder.of(model, graphs.open(IMAGE_ENCODER)))

    def image_projection(self, spec: IpAdapterSpec) -> ImageProjection:
        """The projection of an IP-Adapter, which makes tokens of image prompts."""
        name = spec.component
        return self._graphs.get(name, lambda: ImageProjection(self._graphs.open(name), spec))

    @property
    def vae_encoder(self) -> VaeEncoder:
        """The VAE's encoder, which turns images into latents."""
        if self._vae_encoder is None:
            self._vae_encoder = self._make_vae_encoder()
        return self._vae_encoder

    @property
    def vae_decoder(self) -> VaeDecoder:
        """The VAE's decoder, which turns latents into images."""
        if self._vae_decoder is None:
            self._vae_decoder = self._make_vae_decoder()
        return self._vae_decoder

    @property
    def safety_checker(self) -> SafetyChecker:
        """The safety checker, which finds images that must not be shown. Not every model has one."""
        return self._graphs.get(SAFETY_CHECKER, self._make_safety_checker)

    @property
    def taesd(self) -> TaesdPreview:
        """The small decoder for previews. Not every model has one."""
        return self._graphs.get(TAESD_DECODER, lambda: TaesdPreview(self._graphs.open(TAESD_DECODER)))

    @property
    def graphs(self) -> tuple[Component, ...]:
        """The graphs in memory, in the order in which they were loaded."""
        return self._graphs.current

    def use(self, inversions: Inversions) -> None:
        """Use the words of `inversions` from now on.

        Raises:
            UnsupportedModelError: the text encoder does not support textual inversions.
        """
        for number, spec in enumerate(self._family.text_encoders):
            self.text_encoder(number).use(self._of_encoder(inversions, number, spec.component))
        self._inversions = inversions

    def close(self) -> None:
        """Free every session. Those that a run still uses are freed when it ends."""
        self._graphs.close()

    def load(self, request: FittedRequest | None = None) -> None:
        """Load every component that text to image needs, and the ControlNets of a request.

        With `low_vram`, load nothing in advance.
        """
        if self.low_vram:
            return
        # ONNX Runtime takes more memory while it loads a graph than afterwards. So the largest graph comes first,
        # before the others take memory.
        self.denoiser(NO_MORE if request is None else request.denoiser_inputs)
        for net, _ in () if request is None else self.controls_of(request):
            self.controlnet(net)
        for number, spec in enumerate(self._family.text_encoders):
            if self._model.has(spec.component):
                self.text_encoder(number)
        self.vae_decoder.load()

    def _of_encoder(self, inversions: Inversions, number: int, name: str) -> Inversions:
        return inversions.of_encoder(
            number, whole_number(self._model.component_config(name), "vocab_size", name)
        )

    def _make_text_encoder(self, spec: TextEncoderSpec, number: int) -> TextEncoder:
        name = spec.component
        config = self._model.component_config(name)
        if config.get("use_attention_mask"):
            raise UnsupportedModelError(
                f"{name}/config.json: use_attention_mask is true, which sdrt does not support: use another model",
                component=name,
            )
        positions = whole_number(config, "max_position_embeddings", name)
        tokenizer = Tokenizer(
            self._model.tokenizer_folder(spec.tokenizer),
            max_positions=positions,
            text_encoder=name,
            prefers_vocabulary=self._model.prefers_vocabulary,
        )
        encoder = TextEncoder(tokenizer, self._graphs.open(name), self._notices, spec)
        if self._inversions is not None:
            encoder.use(self._of_encoder(self._inversions, number, name))
        return encoder

    def _make_denoiser(self, more: MoreInputs) -> Component:
        spec = self._family.denoiser
        component = self._graphs.open(spec.component, GraphKind(inputs=more))
        added = [name for name in component.inputs if more.has(name)]
        own = spec.inputs(self._model.component_config(spec.component))
        component.require((*own, *added), (spec.output,))
        return component

    def _make_controlnet(self, spec: ControlNetSpec | T2IAdapterSpec) -> Component:
        component, denoiser = self._graphs.open(spec.component), self._family.denoiser
        if isinstance(spec, T2IAdapterSpec):
            component.require((spec.image,), ())
            return component
        own = denoiser.inputs(self._model.component_config(denoiser.component))
        taken = [name for name in component.inputs if name in own]
        component.require((*taken, spec.image, spec.scale), (spec.middle,))
        return component

    def _make_safety_checker(self) -> SafetyChecker:
        prepare = ClipInput.of(self._model.preprocessor_config, FEATURE_EXTRACTOR)
        return SafetyChecker(self._graphs.open(SAFETY_CHECKER), prepare)

    def _make_vae_encoder(self) -> VaeEncoder:
        spec = self._family.vae
        graphs = self._vae_graphs(spec.encoder, spec.image, spec.parameters)
        return VaeEncoder(graphs, spec, self._latent_scale(spec.encoder))

    def _make_vae_decoder(self) -> VaeDecoder:
        spec = self._family.vae
        return VaeDecoder(
            self._vae_graphs(spec.decoder, spec.latents, spec.decoded),
            spec,
            self._latent_scale(spec.decoder),
            factor=self._model.capabilities.vae_scale_factor,
            denoiser=self._family.denoiser.component,
        )

    def _latent_scale(self, name: str) -> LatentScale:
        task = self._model.capabilities.task
        return LatentScale.of(self._model.component_config(name), name, self._family.vae, task)

    def _vae_graphs(self, name: str, takes: str, gives: str) -> VaeGraphs:
        # The functions below must not refer to `self`, which keeps them.
        model, graphs = self._model, self._graphs
        has_stages = model.graph(name, STAGES_GRAPH) is not None

        def whole() -> Component:
            component = _open_vae(name, model, graphs)
            component.require((takes,), (gives,))
            return component

        def staged() -> StagedVae:
            return StagedVae(graphs.open(name, STAGES_GRAPH))

        return VaeGraphs(
            lambda: graphs.get(f"{name}, whole", whole),
            (lambda: graphs.get(f"{name}, in stages", staged)) if has_stages else None,
            tiling=self._tiling(has_stages),
        )

    def _tiling(self, has_stages: bool) -> bool | None:
        """Return whether the VAE always works in tiles (True), never (False), or only for large images (None)."""
        setting = self._config.vae_tiling
        return True if setting is None and self.low_vram and has_stages else setting


def _open_vae(name: str, model: Model, graphs: OpenGraphs) -> Component:
    """Open the VAE's graph for whole images. Only sdrt's own encoders are known to give the posterior."""
    spec, source = model.family.vae, model.graph(name)
    if source is None or name != spec.encoder or model.manifest is not None:
        return graphs.open(name)
    path = source.path
    with readable(path):
        content = graph_with_posterior(path, spec)
    memory = None if content is None else MemoryGraph(content=content, folder=path.parent)
    return graphs.open(name, memory=memory)
