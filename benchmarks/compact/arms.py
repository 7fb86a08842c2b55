"""The forms of the loss that are compared."""

from __future__ import annotations

from dataclasses import dataclass

from medvl.losses.grounding import GroundingSettings

CHECKED = 0.2  # share of the steps after which weights are compared bit for bit


@dataclass(frozen=True)
class Arm:
    """One way to train; `settings` None is the language-model loss alone.

    Attributes:
        reference: Add the reference system's box loss, a number without gradient.
        share: Stop after this share of the steps.
    """

    name: str
    settings: GroundingSettings | None = None
    reference: bool = False
    share: float = 1.0


ARMS = {
    arm.name: arm
    for arm in (
        Arm("lm"),
        Arm("reference", reference=True, share=CHECKED),
        Arm("w1", GroundingSettings(scale=0.0)),
        Arm("w1+iou", GroundingSettings(beta=0.0, gamma=0.0)),
        Arm("full", GroundingSettings()),
        *(Arm(f"beta={value:g}", GroundingSettings(beta=value)) for value in (0.0, 2.0, 8.0)),
        *(Arm(f"gamma={value:g}", GroundingSettings(gamma=value)) for value in (0.0, 4.0, 16.0)),
        *(Arm(f"scale={value:g}", GroundingSettings(scale=value)) for value in (0.2, 0.8)),
    )
}
