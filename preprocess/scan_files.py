"""DICOM and NIfTI as they are read, one frame or slice at a time, which `preprocess.scans` chooses.

Errors of the readers quote tags: nothing here is called but where they are replaced.
"""

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medvl.errors import DataError
from medvl.images import MAX_PIXELS, window

Slices = Literal["middle", "first", "montage", "all"]
Plane = Literal["axial", "coronal", "sagittal"]
Values = NDArray[Any]
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


class Dicom:
    """A DICOM file."""

    kind = "DICOM"

    def __init__(self, path: str, data: bytes) -> None:
        """Read the tags; raises `DataError` where there is no image, or one that is too large."""
        from pydicom import dcmread

        self.path = path
        self.dataset = dcmread(io.BytesIO(data), force=True)  # forced: older files have no preamble
        if "PixelData" not in self.dataset or "Rows" not in self.dataset:
            raise DataError(f"{path}: a DICOM file without an image")
        if self.dataset.Rows * self.dataset.Columns > MAX_PIXELS:
            raise DataError(f"{path}: more than {MAX_PIXELS} pixels")
        self.grey = str(self.dataset.PhotometricInterpretation).startswith("MONOCHROME")

    def frames(self, _: Plane) -> int:
        """Number of frames; raises `DataError` where there cannot be so many as the tags say."""
        from pydicom.pixels.utils import get_expected_length

        claimed, there = int(self.dataset.get("NumberOfFrames") or 1), len(self.dataset.PixelData)
        # Of compressed frames nothing more is known than that each has bytes.
        least = claimed if self._compressed() else get_expected_length(self.dataset)
        if claimed < 1 or (claimed > 1 and least > there):
            raise DataError(f"{self.path}: says that it has {claimed} frames, more than its pixel data can hold")
        return claimed

    def _compressed(self) -> bool:
        meta: Any = getattr(self.dataset, "file_meta", {})
        return "TransferSyntaxUID" in meta and bool(meta.TransferSyntaxUID.is_compressed)

    def windowed(self, options: ScanOptions) -> str:
        """How values become grey, in words."""
        if not self.grey:
            return "colour"
        own = "windowed by its tags" if self._own_window() else "windowed by percentiles"
        inverted = ", inverted" if self.dataset.PhotometricInterpretation == "MONOCHROME1" else ""
        return (f"windowed to {options.window[0]:g},{options.window[1]:g}" if options.window else own) + inverted

    def _own_window(self) -> bool:
        tags = [self.dataset.get(tag) for tag in ("WindowCenter", "WindowWidth")]
        return all(tag not in (None, "") for tag in tags) or "VOILUTSequence" in self.dataset

    def image(self, place: int, options: ScanOptions) -> Image.Image:
        """A frame or slice as it is shown; no other is decoded."""
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


class Nifti:
    """A NIfTI volume, seen so that its axes go to the right, the front and the head. Only what is shown is read."""

    kind = "NIfTI"

    def __init__(self, path: str) -> None:
        """Read the header; raises `DataError` where it is no volume of numbers, or one that is too large."""
        import nibabel

        self.volume: Any = nibabel.load(path)
        shape, kind = self.volume.shape, self.volume.get_data_dtype()
        if np.prod(shape, dtype=np.float64) > _MOST_VOXELS:
            raise DataError(f"{path}: more than {_MOST_VOXELS} voxels")
        if len(shape) < 3 or 0 in shape or kind.names or kind.kind == "c":
            raise DataError(f"{path}: expected a volume of real numbers, found shape {shape} of {kind}")
        # For each of its axes: which way of the patient it goes, and whether backwards.
        self.ways: Any = nibabel.orientations.io_orientation(self.volume.affine)

    def frames(self, plane: Plane) -> int:
        """Number of slices."""
        return int(self.volume.shape[self._axis(plane)])

    def _axis(self, plane: Plane) -> int:
        return int(np.flatnonzero(self.ways[:, 0] == _AXES[plane])[0])

    def windowed(self, options: ScanOptions) -> str:
        """How values become grey, in words."""
        later = ", the first of several volumes" if len(self.volume.shape) > 3 else ""
        how = f"to {options.window[0]:g},{options.window[1]:g}" if options.window else "by percentiles"
        return f"{options.plane}, windowed {how}{later}"

    def image(self, place: int, options: ScanOptions) -> Image.Image:
        """A frame or slice as it is shown; no other is decoded."""
        axis = self._axis(options.plane)
        cut: list[Any] = [slice(None)] * 3 + [0] * (len(self.volume.shape) - 3)
        cut[axis] = place if self.ways[axis, 1] > 0 else self.volume.shape[axis] - 1 - place
        values = _finite(np.asarray(self.volume.dataobj[tuple(cut)], dtype=np.float64))
        rest = [other for other in range(3) if other != axis]
        # Both axes of the cut run backwards: to the patient's right or front on the left, to head or front on top.
        values = values[tuple(slice(None, None, -1 if self.ways[other, 1] > 0 else 1) for other in rest)]
        across, down = (float(abs(self.volume.header.get_zooms()[other])) for other in rest)
        if self.ways[rest[0], 0] > self.ways[rest[1], 0]:
            values, across, down = values.T, down, across
        image = Image.fromarray(_linear(values.T, *options.window)) if options.window else window(values.T)
        finest = min(across, down) or 1.0
        size = (max(1, round(image.width * across / finest)), max(1, round(image.height * down / finest)))
        return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def _finite(values: Values) -> Values:
    """What is no number at the darkest of a cut, what is infinite at its ends, so that neither moves the window."""
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    return np.nan_to_num(values, nan=low, posinf=high, neginf=low)


_AXES: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}


def _linear(values: Values, centre: float, width: float) -> Values:
    grey: Values = np.rint(np.clip((values - centre) / width + 0.5, 0.0, 1.0) * 255).astype(np.uint8)
    return grey


def _eight_bits(values: Values) -> Values:
    """Colours of more than 8 bits by their upper ones."""
    shift = 8 * values.dtype.itemsize - 8
    upper: Values = (values >> shift).astype(np.uint8)
    return upper
