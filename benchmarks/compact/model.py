"""The compact model: a convolutional encoder, and a recurrent decoder that looks at the image and writes tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

State = tuple[Tensor, Tensor]
_STRIDE = 16
_WIDTH = 96
_HEADS = 4
_LAYERS = 2


class _Layer(nn.Module):
    """Read on (LSTM), look at the image (attention), think (MLP); each added to what came in.

    torch computes an LSTM on a CPU three times as fast as a GRU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_WIDTH, _WIDTH, batch_first=True)
        self.before_look, self.before_mlp = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
        self.query, self.seen, self.out = (nn.Linear(_WIDTH, n * _WIDTH) for n in (1, 2, 1))
        self.mlp = nn.Sequential(nn.Linear(_WIDTH, 2 * _WIDTH), nn.GELU(), nn.Linear(2 * _WIDTH, _WIDTH))

    def keys_and_values(self, places: Tensor) -> list[Tensor]:
        return [_split_heads(part) for part in self.seen(places).chunk(2, -1)]

    def forward(self, x: Tensor, image: list[Tensor], state: State | None) -> tuple[Tensor, State]:
        read, state = self.lstm(x, state)
        x = x + read
        looked = functional.scaled_dot_product_attention(_split_heads(self.query(self.before_look(x))), *image)
        x = x + self.out(looked.transpose(1, 2).flatten(2))
        return x + self.mlp(self.before_mlp(x)), state


def _split_heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (_HEADS, -1)).transpose(1, 2)


def _places(side: int) -> Tensor:
    """Sines and cosines of row and column to start from, shape (1, side * side, width)."""
    at = (torch.arange(side) + 0.5) / side
    waves = at[:, None] * torch.pi * 2 ** torch.linspace(-1, 3, _WIDTH // 4)
    line = torch.cat([waves.sin(), waves.cos()], 1)
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    return torch.cat([rows, columns], 2).reshape(1, side * side, _WIDTH)


class CompactDetector(nn.Module):
    """Images `(b, channels, side, side)` and token ids `(b, t)` to logits `(b, t, vocabulary)`; 0.5 M weights."""

    def __init__(self, channels: int, side: int, vocabulary: int) -> None:  # noqa: D107
        super().__init__()
        # (channels in, out, kernel, stride); patches first, since convolutions of all pixels would be half of all time.
        widths = [(channels, 64, 8, 8), (64, _WIDTH, 3, 2), (_WIDTH, _WIDTH, 3, 1)]
        blocks: list[Any] = []
        for inner, outer, kernel, stride in widths:
            convolution = nn.Conv2d(inner, outer, kernel, stride, kernel % 2, bias=False)
            blocks += [convolution, nn.GroupNorm(8, outer), nn.GELU()]
        self.encoder = nn.Sequential(*blocks)
        self.place = nn.Parameter(_places(side // _STRIDE))
        self.norm = nn.LayerNorm(_WIDTH)
        self.embed = nn.Embedding(vocabulary, _WIDTH)
        self.layers = nn.ModuleList(_Layer() for _ in range(_LAYERS))
        self.head = nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, vocabulary))

    def forward(self, images: Tensor, ids: Tensor) -> Tensor:
        """Logits of the token after each of `ids`."""
        return self._read(ids, self._look(images), [None] * _LAYERS)[0]

    def watched(self, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and where the last layer looks: shape (b, t, places), the mean over heads."""
        seen, last = self._look(images), self.layers[-1]
        queries: list[Tensor] = []
        watch = last.query.register_forward_hook(lambda _module, _inputs, output: queries.append(output))
        logits = self._read(ids, seen, [None] * _LAYERS)[0]
        watch.remove()
        scale = (_WIDTH // _HEADS) ** -0.5
        looked = (scale * _split_heads(queries[0]) @ seen[-1][0].transpose(-1, -2)).softmax(-1).mean(1)
        return logits, looked

    def _look(self, images: Tensor) -> list[list[Tensor]]:
        places = self.norm(self.encoder(images).flatten(2).transpose(1, 2) + self.place)
        return [layer.keys_and_values(places) for layer in self.layers]  # type: ignore[union-attr, operator]

    def _read(
        self, ids: Tensor, seen: list[list[Tensor]], states: list[State | None]
    ) -> tuple[Tensor, list[State | None]]:
        x = self.embed(ids)
        after: list[State | None] = []
        for layer, image, state in zip(self.layers, seen, states, strict=True):
            x, state = layer(x, image, state)
            after.append(state)
        return self.head(x), after

    @torch.inference_mode()
    def write(self, images: Tensor, stop: int, limit: int) -> list[list[int]]:
        """The most probable token again and again for a whole batch, each answer up to its `stop`."""
        seen, states = self._look(images), [None] * _LAYERS
        ids = torch.full((len(images), 1), stop)
        done = torch.zeros(len(images), dtype=torch.bool)
        written = []
        while len(written) < limit and not done.all():
            logits, states = self._read(ids, seen, states)
            ids = logits.argmax(-1)
            written.append(ids)
            done |= ids[:, 0] == stop
        answers = torch.cat(written, 1).tolist()
        return [answer[: answer.index(stop)] if stop in answer else answer for answer in answers]
