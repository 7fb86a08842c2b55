"""Which image a model is shown, in training as in prediction.

LLaMA-Factory opens an image with Pillow and calls `convert("RGB")`: no EXIF orientation, 16 bits clipped to white,
colours under transparent pixels uncovered. Such images are normalised, everywhere by these rules.
"""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from medvl.files import read_file
from medvl.png_data import check_pixels

# LLaMA-Factory could not open more: Pillow raises at twice its warning level (Image.MAX_IMAGE_PIXELS).
MAX_PIXELS = 2 * 89_478_485
# Pillow's others are slow, unsafe (EPS starts Ghostscript) or no images.
FORMATS = ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000")
WINDOW = (0.5, 99.5)  # percentiles of a 16-bit image that become black and white
UPRIGHT = (None, 1)  # orientations that ask for nothing

Image.init()  # without it Pillow knows five formats
_THUMBNAIL_QUALITY = 72
_ORIENTATION = 0x0112  # EXIF tag
_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")


def decode(path: Path, data: bytes | None = None) -> ImageFile:
    """An image with its pixels.

    Args:
        path: Where it lies.
        data: Its bytes, where they have been read already.

    Raises:
        ValueError: it is no whole image of a known format, or larger than LLaMA-Factory opens; names the file, which
            few decoders do.
        OSError: the file cannot be read.
    """
    content = read_file(str(path))[1] if data is None else data
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        fits = image.width * image.height <= MAX_PIXELS
        if fits:
            image.load()
            if image.format == "PNG":
                check_pixels(content)
    except UnidentifiedImageError as error:  # its message has a memory address in it
        raise ValueError(f"{path}: no image of a known format; known: {', '.join(FORMATS)}") from error
    except MemoryError:  # the machine's fault, not the file's
        raise
    except Exception as error:  # decoders raise a dozen types
        raise ValueError(f"{path}: cannot be decoded: {error}; save it anew") from error
    if not fits:
        raise ValueError(f"{path}: {image.width} x {image.height} pixels, more than {MAX_PIXELS}; shrink it")
    return image


def shown(image: Image.Image) -> Image.Image:
    """The image that the model is shown: itself where `convert("RGB")` spoils nothing, else normalised."""
    corrupted = orientation(image) not in UPRIGHT or is_deep(image) or (has_alpha(image) and not is_opaque(image))
    return mend(image) if corrupted else image


def thumbnail(path: Path, side: int) -> tuple[str, tuple[int, int]]:
    """A small JPEG of an image as the model is shown it, for pages.

    Args:
        path: Where it lies.
        side: Largest side, pixels.

    Returns:
        A data address, and (width, height) of the whole image, pixels.

    Raises:
        ValueError, OSError: as `decode`.
    """
    whole = shown(decode(path))
    small = whole.convert("RGB")
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_THUMBNAIL_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", whole.size


def orientation(image: Image.Image) -> int | None:
    """The EXIF orientation, 1 to 8; None without one that means something. Pillow decodes a whole PNG for it."""
    try:
        tags: Mapping[int, object] = image.getexif()
    except (SyntaxError, ValueError):  # EXIF that is none
        return None
    found = tags.get(_ORIENTATION)
    return next((value for value in range(1, 9) if value == found), None)  # found: 9, "6", b"\x06", a fraction, …


def shown_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an image as a viewer shows it, pixels."""
    lies_on_side = (orientation(image) or 1) >= 5
    return (image.height, image.width) if lies_on_side else image.size


def shown_size_of(path: Path) -> tuple[int, int] | None:
    """`shown_size` of a file, from its header; None if it cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return shown_size(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # said when the image is asked about
        return None


def is_deep(image: Image.Image) -> bool:
    """Whether it has more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def has_alpha(image: Image.Image) -> bool:
    """Whether pixels may be transparent."""
    return image.mode in _ALPHA_MODES or "transparency" in image.info


def is_opaque(image: Image.Image) -> bool:
    """Whether no pixel is transparent."""
    return image.convert("RGBA").getchannel("A").getextrema()[0] == 255


def mend(image: Image.Image) -> Image.Image:
    """An image as a viewer shows it, in 8 bits, upright and opaque, without metadata."""
    if orientation(image) not in UPRIGHT:
        image = ImageOps.exif_transpose(image)
    if is_deep(image):
        return window(np.asarray(image, dtype=np.float64))
    if has_alpha(image):
        solid = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", solid.size, "black"), solid)
    grey = image.mode in ("1", "L")
    return Image.fromarray(np.asarray(image.convert("L" if grey else "RGB")))


def window(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Image.Image:
    """An image of more than 8 bits as grey values: `WINDOW` percentiles become 0 and 255, linear between them."""
    finite = np.nan_to_num(values)
    low, high = np.percentile(finite, WINDOW)
    if high <= low:  # nearly all pixels are equal
        low, high = float(finite.min()), float(finite.max())
    scaled = (finite - low) * (255.0 / max(high - low, 1e-12))
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))
