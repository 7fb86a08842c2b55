"""The forward pass of the small BERT that is trained from scratch, in numpy.

Of a question of twelve words, torch's calls take several times as long as its arithmetic. Values agree with torch's to
1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

if TYPE_CHECKING:
    from torch.nn import Module

_WIDEST, _DEEPEST = 256, 2  # of larger ones the arithmetic counts, where torch is faster

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class _Linear:
    weight: Floats  # (in, out)
    bias: Floats

    def __call__(self, values: Floats) -> Floats:
        flat: Floats = values.reshape(-1, values.shape[-1]) @ self.weight + self.bias
        return flat.reshape(*values.shape[:-1], -1)


@dataclass(frozen=True)
class _Norm:
    weight: Floats
    bias: Floats
    epsilon: float

    def __call__(self, values: Floats) -> Floats:
        centred = values - values.mean(-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(self.epsilon))
        normed: Floats = centred / spread * self.weight + self.bias
        return normed


@dataclass(frozen=True)
class _Layer:
    projections: _Linear  # query, key and value beside each other
    attended: _Linear
    attended_norm: _Norm
    inner: _Linear
    outer: _Linear
    outer_norm: _Norm
    heads: int

    def __call__(self, hidden: Floats, hidden_from: Floats) -> Floats:
        questions, tokens, width = hidden.shape
        parts = self.projections(hidden).reshape(questions, tokens, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        query, key, value = parts
        weights = query @ key.transpose(0, 1, 3, 2) * np.float32(1 / math.sqrt(width // self.heads)) + hidden_from
        weights = np.exp(weights - weights.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        context = (weights @ value).transpose(0, 2, 1, 3).reshape(questions, tokens, width)
        hidden = self.attended_norm(self.attended(context) + hidden)
        inner = self.inner(hidden)
        inner = inner * np.float32(0.5) * (1 + erf(inner * np.float32(math.sqrt(0.5))))
        return self.outer_norm(self.outer(inner) + hidden)


@dataclass(frozen=True)
class SmallEncoder:
    """A BERT of one or two layers.

    Attributes:
        words: (vocabulary, width).
        places: (positions, width), with what every token gets in addition.
    """

    words: Floats
    places: Floats
    norm: _Norm
    layers: tuple[_Layer, ...]

    @classmethod
    def of(cls, encoder: Module) -> SmallEncoder | None:
        """A copy of an encoder's weights as they are now; None if it is no small BERT of single precision."""
        config: Any = getattr(encoder, "config", None)
        if getattr(config, "model_type", None) != "bert" or config.hidden_act != "gelu" or config.is_decoder:
            return None
        if config.hidden_size > _WIDEST or config.num_hidden_layers > _DEEPEST:
            return None
        state = {name: value.detach().cpu().numpy() for name, value in encoder.state_dict().items()}
        if any(value.dtype != np.float32 for name, value in state.items() if not name.endswith("_ids")):
            return None
        epsilon = float(config.layer_norm_eps)

        def linear(*names: str) -> _Linear:
            weight = np.concatenate([state[f"{name}.weight"] for name in names])
            return _Linear(np.ascontiguousarray(weight.T), np.concatenate([state[f"{name}.bias"] for name in names]))

        def norm(name: str) -> _Norm:
            return _Norm(state[f"{name}.weight"].copy(), state[f"{name}.bias"].copy(), epsilon)

        def layer(at: str) -> _Layer:
            return _Layer(
                linear(*(f"{at}.attention.self.{part}" for part in ("query", "key", "value"))),
                linear(f"{at}.attention.output.dense"),
                norm(f"{at}.attention.output.LayerNorm"),
                linear(f"{at}.intermediate.dense"),
                linear(f"{at}.output.dense"),
                norm(f"{at}.output.LayerNorm"),
                config.num_attention_heads,
            )

        places = state["embeddings.position_embeddings.weight"] + state["embeddings.token_type_embeddings.weight"][0]
        return cls(
            state["embeddings.word_embeddings.weight"].copy(),
            places,
            norm("embeddings.LayerNorm"),
            tuple(layer(f"encoder.layer.{number}") for number in range(config.num_hidden_layers)),
        )

    def features(self, ids: Sequence[Sequence[int]]) -> Floats:
        """Mean of the last layer over the tokens of each question, shape (questions, width)."""
        longest = max(map(len, ids))
        padded = np.zeros((len(ids), longest), np.intp)
        known = np.zeros((len(ids), longest), np.float32)
        for row, tokens in enumerate(ids):
            padded[row, : len(tokens)] = tokens
            known[row, : len(tokens)] = 1
        hidden = self.norm(self.words[padded] + self.places[:longest])
        hidden_from = ((known - 1) * np.float32(1e9))[:, None, None, :]
        for layer in self.layers:
            hidden = layer(hidden, hidden_from)
        pooled: Floats = (hidden * known[..., None]).sum(1) / known.sum(1, keepdims=True)
        return pooled
