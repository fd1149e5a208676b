"""Runs a text encoder: turns prompts into embeddings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import wrong_value
from sdrt.common.notices import Notices
from sdrt.errors import RequestError, UnsupportedModelError
from sdrt.families import Encoded, TextEncoderSpec
from sdrt.prompts.a1111 import Fragment
from sdrt.text.chunks import chunked
from sdrt.text.textual_inversion import Inversions
from sdrt.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from sdrt.onnx.session import Component

__all__ = ["TextEncoder"]

# Inputs that sdrt's exports have: the embeddings of textual inversions, and the position of a text's end.
_ADDED, _EOS_INDEX = "added_token_embeddings", "eos_index"
Array = NDArray[np.float32]


class TextEncoder:
    """A tokenizer and a text encoder. They turn prompts into float32 embeddings [length, width].

    Raises:
        ComponentError: the graph lacks an input or output that `spec` names.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        component: Component,
        notices: Notices,
        spec: TextEncoderSpec = TextEncoderSpec(),  # noqa: B008 - frozen
    ) -> None:
        ends = (_EOS_INDEX,) if _EOS_INDEX in component.inputs else ()
        pooled = () if spec.pooled is None else (spec.pooled,)
        component.require(("input_ids", *ends), (_output_of(spec, 0), *pooled))
        self.tokenizer, self._component, self._notices, self._spec = tokenizer, component, notices, spec

    def __call__(self, prompts: list[str], clip_skip: int | None = None, *, name: str = "prompt") -> Array:
        """Encode `prompts` as they are to embeddings [len(prompts), length, width].

        `name` is what notices call the prompts. Equal prompts are encoded once. Each prompt runs alone, so that its
        embedding does not depend on the other prompts.
        """
        done = {prompt: self.encode(prompt, clip_skip, name=name).embeds for prompt in dict.fromkeys(prompts)}
        return np.stack([done[prompt] for prompt in prompts])

    def encode(self, prompt: str, clip_skip: int | None = None, *, name: str = "prompt") -> Encoded:
        """Encode the first chunk of a prompt, without any grammar.

        If the prompt is longer, a notice shows the part that is ignored. `name` is what the notice calls the prompt.

        Raises:
            RequestError: the graph has no output for `clip_skip`.
        """
        tokens = self.tokenizer(prompt)
        if tokens.dropped:
            self._notices.warn(
                f"the {name} has more than {self.tokenizer.room} tokens; the end is ignored: "
                f"{_shorten(tokens.dropped)!r}"
            )
        return self._run(tokens.ids, self._output(clip_skip))

    def weighted(self, stretches: Sequence[Sequence[Fragment]], clip_skip: int | None = None) -> Encoded:
        """Encode a weighted prompt of any length to embeddings [chunks * length, width].

        `stretches` are the fragments between two BREAKs; each stretch begins a new chunk. As in A1111's web UI, the
        weights multiply the embeddings, then the mean of each chunk is restored. The pooled embedding is that of the
        first chunk, without weights.

        Raises:
            RequestError: the graph has no output for `clip_skip`.
        """
        output = self._output(clip_skip)
        encoded, pooled = [], []
        for chunk in chunked(stretches, self.tokenizer):
            made = self._run(self.tokenizer.framed(chunk.tokens), output)
            embeds = made.embeds
            if any(weight != 1.0 for weight in chunk.weights):
                weights = np.ones((len(embeds), 1), np.float32)
                weights[1 : 1 + len(chunk.weights), 0] = chunk.weights
                mean = embeds.mean()
                embeds = embeds * weights
                embeds *= mean / embeds.mean()
                self._component.check_finite(output, embeds)
            encoded.append(embeds)
            pooled.append(made.pooled)
        return Encoded(embeds=np.concatenate(encoded), pooled=pooled[0])

    def pooled(self, prompt: str) -> Array | None:
        """Return the pooled embedding of the first chunk of a prompt as it is; None if the encoder makes none."""
        if self._spec.pooled is None:
            return None
        return self._run(self.tokenizer(prompt).ids, self._output(None)).pooled

    def chunk(self, tokens: Sequence[int], clip_skip: int | None = None) -> Encoded:
        """Encode at most `tokenizer.room` tokens to embeddings [length, width]."""
        return self._run(self.tokenizer.framed(tokens), self._output(clip_skip))

    def use(self, inversions: Inversions) -> None:
        """Use the words of `inversions` from now on.

        Raises:
            UnsupportedModelError: the graph has no input for them.
        """
        if inversions.words and _ADDED not in self._component.optional:
            raise UnsupportedModelError(
                "this text encoder was exported without support for textual inversions: export the checkpoint again "
                "with sdrt export",
                component=self._component.name,
            )
        self.tokenizer.inversions = inversions

    def _run(self, tokens: NDArray[np.int64], output: str) -> Encoded:
        given = {"input_ids": tokens[np.newaxis]}
        if _EOS_INDEX in self._component.inputs:
            given[_EOS_INDEX] = self.tokenizer.end(tokens)
        inversions = self.tokenizer.inversions
        if inversions.words and tokens.max() >= inversions.vocabulary:
            return self._run_with_words(given, output, inversions)
        outputs = (output,) if self._spec.pooled is None else (output, self._spec.pooled)
        with self._component.bound({name: array.shape for name, array in given.items()}, outputs) as run:
            for name, array in given.items():
                run.set(name, array)
            made = run()
            # The next run overwrites the buffers.
            embeds, *pooled = [made[name][0].copy() for name in outputs]
        for name, array in zip(outputs, (embeds, *pooled), strict=True):
            self._component.check_finite(name, array)
        return Encoded(embeds=embeds, pooled=pooled[0] if pooled else None)

    def _run_with_words(
        self, given: dict[str, NDArray[np.int64]], output: str, inversions: Inversions
    ) -> Encoded:
        """Run with embeddings of textual inversions. Buffers cannot be bound to this optional input."""
        feeds: dict[str, NDArray[Any]] = {**given, _ADDED: inversions.table}
        embeds: Array = self._component.run(feeds, output)[0].astype(np.float32)
        self._component.check_finite(output, embeds)
        if self._spec.pooled is None:
            return Encoded(embeds=embeds)
        pooled: Array = self._component.run(feeds, self._spec.pooled)[0].astype(np.float32)
        self._component.check_finite(self._spec.pooled, pooled)
        return Encoded(embeds=embeds, pooled=pooled)

    def _output(self, clip_skip: int | None) -> str:
        """Return the name of the output for `clip_skip`.

        It is diffusers' hidden_states[-(clip_skip + 1)], normalised. For a family that reads one of several layers, it
        is hidden_states[-(clip_skip + 1 + layer)] as it is.
        """
        if self._spec.layer is not None:
            return self._layer(self._spec.layer, clip_skip or 0)
        if not clip_skip:
            return self._spec.embeds
        name = f"{self._spec.embeds}.skip_{clip_skip}"
        if name in self._component.outputs:
            return name
        offered = sum(".skip_" in output for output in self._component.outputs)
        if not offered:
            raise RequestError.advised(
                f"clip_skip is {clip_skip}, but this text encoder was exported without it",
                "leave it out, or export the checkpoint again with sdrt export",
                argument="clip_skip",
            )
        raise wrong_value("clip_skip", clip_skip, f"0 to {offered} for this text encoder")

    def _layer(self, layer: int, clip_skip: int) -> str:
        outputs = self._component.outputs
        last = next(
            number for number in itertools.count() if _output_of(self._spec, number + 1) not in outputs
        )
        most = last - layer
        if most < 0:
            raise UnsupportedModelError.advised(
                f"{self._component.name} has {last} layers, of which sdrt reads number {most}",
                "use another model",
                joint="; ",
                component=self._component.name,
            )
        if clip_skip > most:
            raise wrong_value("clip_skip", clip_skip, f"0 to {most} for {self._component.name}")
        return _output_of(self._spec, most - clip_skip)


def _output_of(spec: TextEncoderSpec, layer: int) -> str:
    return spec.embeds if spec.layer is None else f"{spec.embeds}.{layer}"


def _shorten(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
