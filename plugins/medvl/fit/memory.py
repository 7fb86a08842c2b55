"""GPU memory by a formula, for machines without a GPU: computed, not measured.

    weights        parameters x bytes: 0.57 for 4 bits (0.52 double), 1 for 8, 2 for bf16 and fp16, 4 for float32
    trained        parameters x 16: weight, gradient and the two states of AdamW in float32 (10 for 8-bit states)
    activations    tokens of a micro-batch x layers x (9 hidden + 5 attention + 4 MLP widths) x 2 bytes;
                   with checkpointing tokens x layers x hidden x 2, and those of one layer
    logits         tokens x vocabulary x 12 bytes; with the fused loss tokens x hidden x 6
    CUDA           1 GiB for its context, kernels and what lies unused between blocks

Widths per token and layer are what autograd keeps in transformers' Qwen layers with LoRA on all linear layers: two
norms in float32, a copy for each adapter, the heads repeated for attention. A trained vision tower has its own line.
ZeRO-2 divides gradients and states by the devices, ZeRO-3 the weights too.
"""

from __future__ import annotations

import msgspec

from medvl.fit.settings import Setting

GIB = 2**30
CUDA = 1.0
_FOUR_BITS, _DOUBLE = 0.5 + 4 / 64, 0.5 + 1 / 64 + 4 / (64 * 256)
_MASTER = 8  # bytes of weight and gradient in float32
_LOGITS = 12  # the logits, their float32 copy, its softmax, and the gradient


class Layers(msgspec.Struct, frozen=True):
    """A stack of transformer layers: how many, and the widths that a token has in one."""

    count: int
    hidden: int
    attention: int
    mlp: int

    def kept(self, checkpointing: bool, size: int) -> float:
        """Bytes that a token keeps until the backward pass, at `size` bytes a value."""
        one = 9 * self.hidden + 5 * self.attention + 4 * self.mlp
        return size * (self.count * self.hidden + one if checkpointing else self.count * one)


class Sizes(msgspec.Struct, frozen=True):
    """What the formula needs of a model and a recipe.

    Attributes:
        linear: Parameters that quantisation makes small: linear layers but for the output head.
        other: All others.
        trained: Trained parameters; under LoRA those of the adapters, which are in neither of the two.
        adapted: Whether trained parameters are beside the model (LoRA) and not part of it.
        language, vision: Their layers; vision None if it is frozen.
        patches: Tokens of the vision tower for one of the language model.
        vocabulary: Entries of the output head.
        size: Bytes of a value in computing.
        double: Whether 4-bit constants are quantised too.
        states: Bytes of the optimiser's states per trained parameter.
        stage: DeepSpeed's ZeRO stage; 0 without it.
    """

    linear: int
    other: int
    trained: int
    adapted: bool
    language: Layers
    vision: Layers | None
    patches: int
    vocabulary: int
    size: int
    double: bool
    states: int
    stage: int


def computed_gib(sizes: Sizes, setting: Setting, tokens: int, world: int = 1) -> float:
    """GiB on one device.

    Args:
        sizes: Of the model.
        setting: The micro-batch, checkpointing, fused loss and bits.
        tokens: Of the longest record; a micro-batch is padded to it.
        world: Devices, for ZeRO.
    """
    quantised = {4: _DOUBLE if sizes.double else _FOUR_BITS, 8: 1.0}.get(setting.bits or 0, sizes.size)
    plain = sizes.linear * quantised + sizes.other * sizes.size
    if not sizes.adapted:
        plain -= sizes.trained * sizes.size  # in float32 among the trained
    weights = plain + sizes.trained * 4
    rest = float(sizes.trained) * (_MASTER - 4 + sizes.states)
    if sizes.stage >= 3:
        weights /= world
    if sizes.stage >= 2:
        rest /= world
    many = setting.batch * tokens
    activations = many * sizes.language.kept(setting.checkpointing, sizes.size)
    if sizes.vision:
        activations += many * sizes.patches * sizes.vision.kept(setting.checkpointing, sizes.size)
    logits = many * (6 * sizes.language.hidden if setting.fused else _LOGITS * sizes.vocabulary)
    return (weights + rest + activations + logits) / GIB + CUDA
