"""How one adapter is asked: as its run card says it was trained.

What a profile states wins over the card, and a difference is a warning: whoever asks otherwise than the model was
trained should know it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from medvl.boxes import Frame
from medvl.factory.run_card import RunCard, find_run_card
from medvl.instructions import GENERAL, fingerprint
from medvl.profiles import Profile
from medvl.tasks import Task

# LLaMA-Factory's own defaults, for a model without a run card.
_MAX_PIXELS, _MIN_PIXELS = 768 * 768, 32 * 32


@dataclass(frozen=True)
class AdapterSpec:
    """One adapter, or the base model, and how it is asked.

    Attributes:
        name: The adapter's name; None for the base model.
        folder: Where it lies; None for the base model, and at an endpoint.
        identity: Changes whenever its weights do.
        system: System prompt; None leaves that to an endpoint.
        image_max_pixels: Largest area of an image, pixels; None leaves that to an endpoint.
        image_min_pixels: Smallest area.
        crop_to_patches: Whether images are cut into tiles (InternVL).
        max_tiles: Most tiles per image; None for models without tiles.
        frame: Frame of the boxes in its answers.
        card: Its run card, None without one.
    """

    name: str | None
    folder: Path | None
    identity: str
    system: str | None
    image_max_pixels: int | None
    image_min_pixels: int
    crop_to_patches: bool
    max_tiles: int | None
    frame: Frame
    card: RunCard | None


def as_trained(
    name: str | None, folder: Path | None, identity: str, card: RunCard | None, frame: Frame | None
) -> AdapterSpec:
    """As its run card says; without one, as LLaMA-Factory would by default, or as an endpoint does by itself."""
    vision, at_endpoint = card.vision if card else None, name is not None and folder is None
    return AdapterSpec(
        name=name,
        folder=folder,
        identity=identity,
        system=card.prompt.system if card else None if at_endpoint else "",
        image_max_pixels=vision.image_max_pixels if vision else None if at_endpoint else _MAX_PIXELS,
        image_min_pixels=vision.image_min_pixels if vision else _MIN_PIXELS,
        crop_to_patches=vision.crop_to_patches if vision else False,
        max_tiles=vision.max_tiles if vision else None,
        frame=frame or (_trained_frame(card) if card else None) or Frame.NORM1000,
        card=card,
    )


def _trained_frame(card: RunCard) -> Frame | None:
    """Frame of the boxes that the model was trained on; None where its data did not say."""
    stated = {file.frame for file in card.data if file.role == "train"}
    return next((known for known in Frame if stated == {known}), None)


def at_endpoint(model: str, folder: Path | None, frame: Frame | None) -> AdapterSpec:
    """A model at an endpoint, asked as the adapter or model in `folder` was trained, if that is given.

    Raises:
        ValueError: a damaged run card.
    """
    return as_trained(model, None, model, find_run_card(folder) if folder else None, frame)


class Budget(NamedTuple):
    """What turns an image into tokens; areas in pixels."""

    image_max_pixels: int
    image_min_pixels: int
    crop_to_patches: bool


def vision_budget(spec: AdapterSpec, image_max_pixels: int | None = None) -> Budget:
    """The budget that an adapter was trained with, or another area.

    Raises:
        ValueError: neither is known, as at an endpoint.
    """
    pixels = image_max_pixels or spec.image_max_pixels
    if pixels is None:
        raise ValueError(f"{spec.name}: no pixel budget; only an endpoint can choose one by itself")
    return Budget(pixels, spec.image_min_pixels, spec.crop_to_patches)


def differences(profile: Profile, spec: AdapterSpec) -> list[str]:
    """Where a profile asks an adapter otherwise than its run card says it was trained."""
    card = spec.card
    if card is None:
        return []
    found = []
    if profile.system is not None and profile.system != card.prompt.system:
        found.append(f"system prompt {profile.system!r}, trained with {card.prompt.system!r}")
    if profile.image_max_pixels not in (None, card.vision.image_max_pixels):
        found.append(f"image_max_pixels {profile.image_max_pixels}, trained with {card.vision.image_max_pixels}")
    asked = fingerprint({Task(profile.name): profile.instruction}) if profile.instruction else None
    trained = [file.instructions for file in card.data if file.role == "train" and file.instructions is not None]
    if profile.name == GENERAL:
        differs = any(trained)
    elif trained:
        differs = any(stated.get(profile.name) != asked for stated in trained)
    else:
        differs = asked is not None  # its data does not say, and the usual is verbatim
    if differs:
        found.append("answer instruction other than in its training data; convert that with the same --profiles")
    return [f"profile {profile.name}, adapter {spec.name or 'none'}: {difference}" for difference in found]
