"""The forms of the loss that are compared."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from medvl.losses.grounding import GroundingSettings

CHECKED = 0.2  # share of the steps after which weights are compared bit for bit
Order = Literal["raster", "random", "size"]


@dataclass(frozen=True)
class NumberTerms:
    """Weights of the terms of `compact.numbers`; `sigma` in thousandths of the side."""

    soft: float = 0.0
    sigma: float = 5.0
    distance: float = 0.0


@dataclass(frozen=True)
class Arm:
    """One way to train; `settings` None is the language-model loss alone.

    Attributes:
        numbers: Terms that are tried here and are not of the product.
        order: Of the boxes in the answers that are learned.
        reference: Add the reference system's box loss, a number without gradient.
        share: Stop after this share of the steps.
        matched: Learn the order that costs least; see `compact.matching`.
        noise: Drawn boxes behind the objects of each answer; see `compact.denoising`.
        askew: Standard deviation, in thousandths, by which boxes are off when they are read; see there.
    """

    name: str
    settings: GroundingSettings | None = None
    numbers: NumberTerms | None = None
    order: Order = "raster"
    reference: bool = False
    share: float = 1.0
    matched: bool = False
    noise: int = 0
    askew: float = 0.0

    @property
    def plan(self) -> dict[str, Any]:
        """All that makes it what it is, but its name."""
        values = dataclasses.asdict(self).items()
        return {key: value for key, value in values if key != "name" and (value or key not in _ADDED)}


# Added after runs were kept: an arm without them has the plan that these runs have.
_ADDED = ("matched", "noise", "askew")


# Written out: were the product's defaults to change, the arms of the runs that are kept would not.
_FULL = GroundingSettings(alpha=1.0, beta=0.5, gamma=1.0, w1=0.3, scale=0.05, iou="giou")


def _but(**changes: float) -> GroundingSettings:
    """`full` but for these."""
    return dataclasses.replace(_FULL, **changes)  # type: ignore[arg-type]


_NO_W1 = _but(w1=0.0)


def _soft(sigma: float, weight: float, settings: GroundingSettings) -> Arm:
    """Soft labels in place of W1, or beside it."""
    name = ("w1+" if settings.w1 else "") + f"soft={sigma:g}x{weight:g}"
    scaled = "" if settings.scale == _FULL.scale else f",scale={settings.scale:g}"
    return Arm(name + scaled, settings, NumberTerms(soft=weight, sigma=sigma))


ARMS = {
    arm.name: arm
    for arm in (
        Arm("lm"),
        Arm("reference", reference=True, share=CHECKED),
        Arm("w1", _but(scale=0.0)),
        Arm("w1+iou", _but(beta=0.0, gamma=0.0)),
        Arm("full", _FULL),
        *(Arm(f"beta={value:g}", _but(beta=value)) for value in (0.0, 2.0, 8.0)),
        *(Arm(f"gamma={value:g}", _but(gamma=value)) for value in (0.0, 4.0, 16.0)),
        *(Arm(f"scale={value:g}", _but(scale=value)) for value in (0.2, 0.8)),
        Arm("scale=0.2,beta=1", _but(scale=0.2, beta=1.0)),
        *(_soft(sigma, weight, _NO_W1) for sigma in (4.0, 10.0) for weight in (0.1, 0.5)),
        _soft(4.0, 0.1, _FULL),
        _soft(4.0, 0.1, _but(w1=0.0, scale=0.2)),
        _soft(4.0, 0.5, _but(w1=0.0, scale=0.2)),
        Arm("distance", _NO_W1, NumberTerms(distance=3.0)),
        *(Arm(f"order={order}", _FULL, order=order) for order in ("random", "size")),
        *(Arm(f"beta=2,order={order}", _but(beta=2.0), order=order) for order in ("random", "size")),
        Arm("beta=2,matched", _but(beta=2.0), matched=True),
        Arm("beta=2,noise=2", _but(beta=2.0), noise=2),
        Arm("beta=2,askew=20", _but(beta=2.0), askew=20.0),
    )
}
