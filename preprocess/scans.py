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
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil, sqrt
from typing import Any, get_args

from PIL import Image

from medvl.errors import DataError, UsageError
from preprocess.scan_files import Dicom, Nifti, Plane, ScanOptions, Slices

_DICOM = (".dcm", ".dicom", ".ima")
_NIFTI = (".nii", ".nii.gz")
_FRAME = re.compile(r"(.*\.(?:dcm|dicom|ima|nii|nii\.gz))#([0-9]+)", re.IGNORECASE | re.DOTALL)
_IMAGES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")  # PNG, JPEG, GIF, TIFF, called as a scan
_TILES = 9  # of a montage


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
    if data[128:132] == b"DICM":
        return True
    return name.lower().endswith((*_DICOM, *_NIFTI)) and not data.startswith(_IMAGES)


def render(name: str, data: bytes, options: ScanOptions) -> tuple[Image.Image, str]:
    """A file as it is shown, mode L or RGB, and how that came to be, in words.

    Args:
        name: Path, with the frame behind # if one is asked for.
        data: Content of the file.
        options: How files are shown.

    Raises:
        DataError: it cannot be shown; says why without a word of what the file holds.
        UsageError: the extra is not installed.
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
        said = scan.windowed(options)
    at = f", frame {', '.join(map(str, wanted))} of {len(frames)}" if len(frames) > 1 else ""
    if options.slices == "all" and len(frames) > 1 and frame is None:
        at += f" alone, since only names that end in {', '.join((*_DICOM, *_NIFTI))} can ask for each"
    return _montage(shown), f"{scan.kind}{at}; {said}"


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
        raise UsageError(
            f'{path}: DICOM and NIfTI need libraries: pip install --editable ".[scans]" in the clone'
        ) from error
    except Exception as error:  # readers raise a dozen types
        cure = "save it anew, or as PNG, if a viewer shows it"
        raise DataError(f"{path}: cannot be read as DICOM or NIfTI ({type(error).__name__}); {cure}") from None
    finally:
        logging.disable(before)


def _open(path: str, data: bytes) -> Dicom | Nifti:
    nifti = path.lower().endswith(_NIFTI) and data[128:132] != b"DICM"
    return Nifti(path) if nifti else Dicom(path, data)
