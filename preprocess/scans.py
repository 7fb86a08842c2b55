"""DICOM and NIfTI as the 8-bit image that a model is shown. Needs the extra `scans`, and is imported for such files.

What decides how a file is shown, in this order:
- frame or slice: the one that its name asks for (`cine.dcm#3`), else `--slices`: the middle one, the first, several
  side by side (montage), or all, each as an image of its own;
- values: rescale slope and intercept, a colour palette, colours of video as RGB;
- window: `--window`, else the file's own (or its lookup table), else the 0.5 and 99.5 percentiles of what is shown;
- MONOCHROME1 is inverted. NIfTI is turned to the radiological view, the patient's right on the left, and its pixels
  are made square.

Tags are read for that alone: none is copied to an image, a name or a message, so that errors are told without what the
reader says of them. What is burned into the pixels, as names in ultrasound, is not looked for.
"""

import argparse
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medvl.errors import DataError, UsageError
from medvl.images import MAX_PIXELS, window

Slices = Literal["middle", "first", "montage", "all"]
Plane = Literal["axial", "coronal", "sagittal"]
Values = NDArray[Any]
_DICOM = (".dcm", ".dicom", ".ima")
_NIFTI = (".nii", ".nii.gz")
_FRAME = re.compile(r"(.*\.(?:dcm|dicom|ima|nii|nii\.gz))#([0-9]+)", re.IGNORECASE | re.DOTALL)
_TILES = 9  # of a montage
_MOST_VOXELS = 2**30  # of a volume; a compressed file of megabytes can claim any number


@dataclass(frozen=True)
class ScanOptions:
    """How DICOM and NIfTI are shown.

    Attributes:
        slices: Which frames of several.
        window: (centre, width) in the file's units; None for its own, or percentiles.
        plane: How a volume of NIfTI is cut.
    """

    slices: Slices = "middle"
    window: tuple[float, float] | None = None
    plane: Plane = "axial"


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """The options of this module."""
    add = arguments.add_argument_group("DICOM and NIfTI").add_argument
    add("--slices", choices=get_args(Slices), default="middle",
        help="which of several frames or slices: middle (default), first, nine in a montage, or all")  # fmt: skip
    add("--window", type=_window, metavar="CENTRE,WIDTH",
        help="values from black to white, as 40,400 (default: the file's own, else percentiles)")  # fmt: skip
    add("--plane", choices=get_args(Plane), default="axial", help="how a NIfTI volume is cut (default: axial)")


def chosen(args: argparse.Namespace) -> ScanOptions:
    """What the options of `add_arguments` say."""
    return ScanOptions(args.slices, args.window, args.plane)


def recorded(args: argparse.Namespace) -> dict[str, Any]:
    """Those of the options that are not the defaults, for the manifest."""
    stated = {"slices": args.slices, "window": args.window and list(args.window), "plane": args.plane}
    return {name: value for name, value in stated.items() if value != getattr(ScanOptions(), name)}


def _window(text: str) -> tuple[float, float]:
    try:
        centre, width = map(float, text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected two numbers, as 40,400") from error
    if not width > 0:
        raise argparse.ArgumentTypeError(f"{text!r}: the width must be above 0")
    return centre, width


def split_frame(name: str) -> tuple[str, int | None]:
    """A name and the frame that it asks for.

    >>> split_frame("a/cine.dcm#12"), split_frame("a#1.png")
    (('a/cine.dcm', 12), ('a#1.png', None))
    """
    found = _FRAME.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, None)


def is_scan(name: str, data: bytes) -> bool:
    """Whether a file is DICOM or NIfTI, by its first bytes, or by its name where these do not tell."""
    return data[128:132] == b"DICM" or name.lower().endswith((*_DICOM, *_NIFTI))


def render(name: str, data: bytes, options: ScanOptions) -> tuple[Image.Image, str]:
    """A file as it is shown, mode L or RGB, and how that came to be, in words.

    Args:
        name: Path, with the frame behind # if one is asked for.
        data: Content of the file.
        options: How files are shown.

    Raises:
        DataError: it cannot be shown; says why without a word of what the file holds.
    """
    path, frame = split_frame(name)
    with _quiet(path):
        scan = _open(path, data)
    frames = range(scan.frames(options.plane))
    if frame is not None and frame not in frames:
        raise DataError(f"{name}: has frames 0 to {len(frames) - 1}")
    wanted = [frame] if frame is not None else _wanted(frames, options.slices)
    with _quiet(path):
        shown = [scan.image(place, options) for place in wanted]
    at = f", frame {', '.join(map(str, wanted))} of {len(frames)}" if len(frames) > 1 else ""
    return _montage(shown), f"{scan.kind}{at}; {scan.windowed(options)}"


def frames_in(path: str, data: bytes, options: ScanOptions) -> int:
    """Number of frames or slices; raises `DataError` as `render`."""
    with _quiet(path):
        return _open(path, data).frames(options.plane)


def _wanted(frames: Sequence[int], slices: Slices) -> list[int]:
    if slices == "montage" and len(frames) > 1:
        count = min(_TILES, len(frames))
        return [frames[round((place + 0.5) * len(frames) / count - 0.5)] for place in range(count)]
    return [frames[0] if slices in ("first", "all") else frames[len(frames) // 2]]


def _montage(images: Sequence[Image.Image]) -> Image.Image:
    if len(images) == 1:
        return images[0]
    across = ceil(sqrt(len(images)))
    width, height = images[0].size
    whole = Image.new(images[0].mode, (across * width, ceil(len(images) / across) * height))
    for place, image in enumerate(images):
        whole.paste(image, (place % across * width, place // across * height))
    return whole


@contextmanager
def _quiet(path: str) -> Iterator[None]:
    """Turn whatever a reader raises or warns of into an error that names the file alone: messages quote tags."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (DataError, UsageError, MemoryError):
        raise
    except ImportError as error:
        raise DataError(f"{path}: DICOM and NIfTI need pip install 'medvl[scans]'") from error
    except Exception as error:  # readers raise a dozen types
        raise DataError(f"{path}: cannot be read as DICOM or NIfTI ({type(error).__name__})") from None
    finally:
        logging.disable(before)


def _open(path: str, data: bytes) -> "_Dicom | _Nifti":
    nifti = path.lower().endswith(_NIFTI) and data[128:132] != b"DICM"
    return _Nifti(path) if nifti else _Dicom(path, data)


class _Dicom:
    """A DICOM file."""

    kind = "DICOM"

    def __init__(self, path: str, data: bytes) -> None:
        from pydicom import dcmread

        self.dataset = dcmread(io.BytesIO(data), force=True)  # forced: older files have no preamble
        if "PixelData" not in self.dataset or "Rows" not in self.dataset:
            raise DataError(f"{path}: a DICOM file without an image")
        if self.dataset.Rows * self.dataset.Columns > MAX_PIXELS:
            raise DataError(f"{path}: more than {MAX_PIXELS} pixels")
        self.grey = str(self.dataset.PhotometricInterpretation).startswith("MONOCHROME")

    def frames(self, _: Plane) -> int:
        return int(self.dataset.get("NumberOfFrames") or 1)

    def windowed(self, options: ScanOptions) -> str:
        if not self.grey:
            return "colour"
        own = "windowed by its tags" if self._own_window() else "windowed by percentiles"
        inverted = ", inverted" if self.dataset.PhotometricInterpretation == "MONOCHROME1" else ""
        return (f"windowed to {options.window[0]:g},{options.window[1]:g}" if options.window else own) + inverted

    def _own_window(self) -> bool:
        tags = [self.dataset.get(tag) for tag in ("WindowCenter", "WindowWidth")]
        return all(tag not in (None, "") for tag in tags) or "VOILUTSequence" in self.dataset

    def image(self, place: int, options: ScanOptions) -> Image.Image:
        from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

        stored = pixel_array(self.dataset, index=place)
        if str(self.dataset.PhotometricInterpretation) == "PALETTE COLOR":
            stored = apply_color_lut(stored, self.dataset)
        if not self.grey:
            return Image.fromarray(_eight_bits(stored))
        values = apply_modality_lut(stored, self.dataset)
        if options.window:
            grey = _linear(values, *options.window)
        elif self._own_window():
            grey = self._by_tags(values)
        else:
            grey = np.asarray(window(self._without_padding(stored, values.astype(np.float64))))
        return Image.fromarray(255 - grey if self.dataset.PhotometricInterpretation == "MONOCHROME1" else grey)

    def _by_tags(self, values: Values) -> Values:
        """By the file's lookup table, else its first window (PS3.3 C.11.2)."""
        from pydicom.pixels import apply_voi_lut

        if tables := self.dataset.get("VOILUTSequence"):
            most = 2 ** int(tables[0].LUTDescriptor[2]) - 1
            through: Values = np.clip(np.rint(apply_voi_lut(values, self.dataset) * (255 / most)), 0, 255)
            return through.astype(np.uint8)
        centre, width = (np.atleast_1d(self.dataset.get(tag))[0] for tag in ("WindowCenter", "WindowWidth"))
        if self.dataset.get("VOILUTFunction") == "SIGMOID":
            curve: Values = np.rint(255 / (1 + np.exp(-4 * (values - float(centre)) / float(width))))
            return curve.astype(np.uint8)
        return _linear(values, float(centre), float(width))

    def _without_padding(self, stored: Values, values: Values) -> Values:
        """What lies outside the scanner's view, at its darkest, so that it does not move the percentiles."""
        padding = self.dataset.get("PixelPaddingValue")
        if padding is None or not (outside := stored == padding).any() or outside.all():
            return values
        return np.where(outside, values[~outside].min(), values)


class _Nifti:
    """A NIfTI volume, turned so that its axes go to the right, the front and the head."""

    kind = "NIfTI"

    def __init__(self, path: str) -> None:
        import nibabel

        image: Any = nibabel.load(path)
        if np.prod(image.shape, dtype=np.float64) > _MOST_VOXELS:
            raise DataError(f"{path}: more than {_MOST_VOXELS} voxels")
        self.volume: Any = nibabel.as_closest_canonical(image)
        if len(self.volume.shape) < 3 or self.volume.get_data_dtype().names:
            raise DataError(f"{path}: expected a volume of numbers, found shape {self.volume.shape}")

    def frames(self, plane: Plane) -> int:
        return int(self.volume.shape[_AXES[plane]])

    def windowed(self, options: ScanOptions) -> str:
        later = ", the first of several volumes" if len(self.volume.shape) > 3 else ""
        how = f"to {options.window[0]:g},{options.window[1]:g}" if options.window else "by percentiles"
        return f"{options.plane}, windowed {how}{later}"

    def image(self, place: int, options: ScanOptions) -> Image.Image:
        axis = _AXES[options.plane]
        cut: list[Any] = [slice(None)] * 3 + [0] * (len(self.volume.shape) - 3)
        cut[axis] = place
        # Both axes of the cut run backwards: to the patient's right or front on the left, to head or front on top.
        values = np.nan_to_num(np.asarray(self.volume.dataobj[tuple(cut)], dtype=np.float64))[::-1, ::-1].T
        image = Image.fromarray(_linear(values, *options.window)) if options.window else window(values)
        across, down = np.delete(np.abs(self.volume.header.get_zooms()[:3]), axis)
        finest = min(across, down) or 1.0
        size = (max(1, round(image.width * across / finest)), max(1, round(image.height * down / finest)))
        return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


_AXES: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}


def _linear(values: Values, centre: float, width: float) -> Values:
    grey: Values = np.rint(np.clip((values - centre) / width + 0.5, 0.0, 1.0) * 255).astype(np.uint8)
    return grey


def _eight_bits(values: Values) -> Values:
    """Colours of more than 8 bits by their upper ones."""
    shift = 8 * values.dtype.itemsize - 8
    upper: Values = (values >> shift).astype(np.uint8)
    return upper
