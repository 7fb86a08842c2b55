"""Changes that leave every pixel where it is: brightness, contrast, gamma, noise, blur, compression.

Hue and saturation stay: the colour of a stain, of skin or of mucosa is part of many answers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torchvision.transforms.v2 import functional as transform

BRIGHTNESS, CONTRAST, GAMMA = (0.85, 1.15), (0.85, 1.15), (0.85, 1.18)
OFTEN, SELDOM = 0.5, 0.3  # how often an extra change of `advanced` is made
GRAIN = 2  # pixels: ultrasound speckle is coarser than the pixels of a scan
SPECKLE, NOISE = (0.05, 0.15), (2.0, 8.0)  # share of the brightness; grey levels of 255
BLUR, QUALITY = (0.3, 1.2), (50, 95)  # pixels; JPEG's own scale


def change_photometric(image: Any, random: Generator, *, advanced: bool, ultrasound: bool) -> Any:
    """A torchvision uint8 Image, channels first, changed photometrically; `advanced` with noise, blur and
    compression.
    """
    image = transform.adjust_brightness(image, random.uniform(*BRIGHTNESS))
    image = transform.adjust_contrast(image, random.uniform(*CONTRAST))
    image = transform.adjust_gamma(image, random.uniform(*GAMMA))
    if not advanced:
        return image
    if random.random() < OFTEN:
        image = _speckle(image, random) if ultrasound else _noise(image, random)
    if random.random() < SELDOM:
        sigma = random.uniform(*BLUR)
        image = transform.gaussian_blur(image, kernel_size=[5, 5], sigma=[sigma, sigma])
    if random.random() < SELDOM:
        image = transform.jpeg(image, int(random.integers(*QUALITY, endpoint=True)))
    return image


def _speckle(image: Any, random: Generator) -> Any:
    """Noise in proportion to the brightness, in grains; the dark background stays dark."""
    height, width = image.shape[-2:]
    grains = random.standard_normal((1, 1, -(-height // GRAIN), -(-width // GRAIN)), dtype=np.float32)
    field = torch.nn.functional.interpolate(torch.from_numpy(grains), (height, width), mode="bilinear")[0]
    return _grey_levels(image, image * (1 + random.uniform(*SPECKLE) * field))


def _noise(image: Any, random: Generator) -> Any:
    """The same noise on all channels: a sensor's, not a change of colour."""
    field = torch.from_numpy(random.standard_normal((1, *image.shape[-2:]), dtype=np.float32))
    return _grey_levels(image, image + random.uniform(*NOISE) * field)


def _grey_levels(image: Any, values: torch.Tensor) -> Any:
    return image.__class__(values.round_().clamp_(0, 255).to(torch.uint8))
