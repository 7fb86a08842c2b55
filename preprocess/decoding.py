"""Is an image whole, how large is it, and does LLaMA-Factory show it as it is? One file, decoded as far as that takes.

Images that LLaMA-Factory would spoil (`medvl.images`) are normalised in a copy; what cannot be normalised is reported.
"""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from PIL import Image, ImageFile, UnidentifiedImageError

from medvl.errors import DataError, UsageError
from medvl.images import FORMATS, MAX_PIXELS, UPRIGHT, has_alpha, is_deep, is_opaque, mend, orientation, shown
from medvl.png_data import check_pixels
from medvl.sharegpt import write_atomic
from preprocess.scan_files import ScanOptions
from preprocess.scans import is_scan, render, split_frame

_PNG_EXIF = {"exif", "Raw profile type exif", "XML:com.adobe.xmp"}  # where Pillow looks for it
_SCAN, _END = b"\xff\xda", b"\xff\xd9"  # JPEG markers: start of a scan, end of the image


class ImageInfo(msgspec.Struct, frozen=True, array_like=True):
    """What was found at a path.

    Attributes:
        path: File to train on: the original, or its normalised copy.
        size: (width, height), pixels, EXIF orientation applied; None if the image is unusable.
        problem: Code of why it is unusable (`preprocess.report.CODES`), or None.
        detail: The problem in words.
        notes: Codes and details of what was normalised, or is worth knowing.
        sha256: Hash of the file to train on; empty if the image is unusable.
    """

    path: str
    size: tuple[int, int] | None
    problem: str | None = None
    detail: str = ""
    notes: tuple[tuple[str, str], ...] = ()
    sha256: bytes = b""


@dataclass(frozen=True)
class Rendering:
    """How images are shown.

    Attributes:
        max_side: Longest side of an image that is used as it is, pixels; a copy of a larger one is as long.
        scans: How DICOM and NIfTI are shown.
    """

    max_side: int | None = None
    scans: ScanOptions = field(default_factory=ScanOptions)


AS_IT_IS = Rendering()


def examine(path: str, copy: str, data: bytes, rendering: Rendering = AS_IT_IS) -> ImageInfo:
    """Look at one image.

    PNG: every chunk's checksum, and that its data is all of its pixels, which is as good as decoding and four times
    faster. JPEG: decoded at an eighth of its size, and its end marker (a truncated JPEG passes Pillow's `verify()`).
    Others: decoded in full.

    Args:
        path: The image.
        copy: Where to write a normalised copy if it needs one: a PNG without metadata.
        data: Content of the image's file.
        rendering: How it is shown.

    Raises:
        UsageError: it is DICOM or NIfTI, and the extra for these is not installed.
    """
    side = rendering.max_side
    try:
        if is_scan(split_frame(path)[0], data):
            size, notes, normalised = _render(path, data, rendering.scans)
        else:
            size, notes, normalised = _decode(path, data)
        if side and max(size) > side:
            normalised = _thumbnail(normalised or _opened(data), side)
    except Image.DecompressionBombError as error:
        return ImageInfo(path, None, "IMAGE_TOO_LARGE", f"{path}: {error}")
    except UsageError:  # the extra for scans is not installed, which is no fault of the file
        raise
    except DataError as error:  # names the file
        return ImageInfo(path, None, "IMAGE_UNREADABLE", str(error))
    except UnidentifiedImageError:  # its message has a memory address in it
        cure = "; save a pair of .hdr and .img as .nii" if path.lower().endswith((".hdr", ".img")) else ""
        return ImageInfo(path, None, "IMAGE_UNREADABLE", f"{path} is no image of a known format{cure}")
    except Exception as error:  # decoders raise a dozen types on broken files; whichever, the image is unreadable
        return ImageInfo(path, None, "IMAGE_UNREADABLE", f"{path}: {type(error).__name__}: {error}")
    if normalised is None:
        return ImageInfo(path, size, notes=tuple(notes), sha256=hashlib.sha256(data).digest())
    buffer = io.BytesIO()
    normalised.save(buffer, "PNG")
    write_atomic(Path(copy), buffer.getvalue())
    said = tuple((code, f"{detail}; {copy} is used") for code, detail in notes)
    return ImageInfo(copy, normalised.size, notes=said, sha256=hashlib.sha256(buffer.getvalue()).digest())


def _render(
    path: str, data: bytes, options: ScanOptions
) -> tuple[tuple[int, int], list[tuple[str, str]], Image.Image | None]:
    """As `_decode`, of DICOM or NIfTI."""
    image, said = render(path, data, options)
    return image.size, [("SCAN_RENDERED", f"{path} is {said}")], image


def _decode(path: str, data: bytes) -> tuple[tuple[int, int], list[tuple[str, str]], Image.Image | None]:
    """Size of a whole image, what is worth knowing about it, and the normalised image if it must not be used as it is.

    Raises:
        Exception: of many types, if the image is broken.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        size, layout = image.size, image.format or ""
        if size[0] * size[1] > MAX_PIXELS:  # Pillow's own limit can be switched off
            raise Image.DecompressionBombError(f"{size[0]} x {size[1]} pixels, more than {MAX_PIXELS}")
        issues = list(_issues(image, data))
        if layout in ("JPEG", "MPO"):
            if not data.endswith(_END) and data.rfind(_END) < data.rfind(_SCAN):
                raise ValueError("image file is truncated: no end marker")
            image.draft("L", (1, 1))
            image.load()
        elif layout == "PNG":
            image.verify()
            check_pixels(data)
        else:
            image.load()
    notes = [(code, f"{path} {issue}") for code, issue, _ in issues]
    if not any(normalised for *_, normalised in issues):
        return size, notes, None
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.load()
        if [code for code, _ in notes] == ["ALPHA_FLATTENED"] and is_opaque(image):
            return size, [], None
        return size, notes, mend(image)


def _opened(data: bytes) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    image.load()
    return image


def _thumbnail(image: Image.Image, max_side: int) -> Image.Image:
    """An image as it is shown, no longer than a side; its proportions stay."""
    small = shown(image)
    small = small.copy() if small.mode in ("L", "RGB") else small.convert("RGB")  # palettes would be thinned
    small.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return small


def _issues(image: ImageFile.ImageFile, data: bytes) -> Iterator[tuple[str, str, bool]]:
    """Code, words, and whether a copy mends it."""
    if _orientation(image, data) not in UPRIGHT:
        yield "EXIF_ROTATED", "is rotated by EXIF", True
    if is_deep(image):
        yield "DEPTH_WINDOWED", f"has more than 8 bits ({image.mode}), windowed to 8", True
    if has_alpha(image):
        yield "ALPHA_FLATTENED", "has transparent pixels, laid on black", True
    if image.format not in ("JPEG", "MPO") and getattr(image, "is_animated", False):
        yield "IMAGE_FRAMES", "has several frames; the first is shown", False
    if image.mode == "CMYK":
        yield "IMAGE_CMYK", "is CMYK; shown without its colour profile", False


def _orientation(image: ImageFile.ImageFile, data: bytes) -> int | None:
    if image.format == "PNG":
        # `getexif` decodes the whole image in search of a chunk that its bytes mostly show not to be there, and what
        # is decoded cannot be verified. The bytes may also stand there by chance.
        if not image.info.keys() & _PNG_EXIF and b"eXIf" not in data[_end_of_pixels(image.tile[0][2] - 8, data) :]:
            return None
        with Image.open(io.BytesIO(data), formats=("PNG",)) as another:
            return orientation(another)
    if image.format in ("JPEG", "MPO") and not image.info.keys() & {"exif", "xmp"}:
        return None
    return orientation(image)


def _end_of_pixels(place: int, data: bytes) -> int:
    """Where the chunks of a PNG end that hold its pixels, the first of which begins at `place`."""
    while data[place + 4 : place + 8] == b"IDAT":
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return place
