"""What an image shows, in 300 bytes: a hash of its file, a perceptual hash, a thumbnail to confirm similarity with."""

import hashlib
import io
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medvl.files import read_file

THUMBNAIL = 16  # side of the thumbnail, pixels


class Fingerprint(msgspec.Struct, frozen=True, array_like=True):
    """What is known of one image file.

    Attributes:
        length: Size of the file, bytes.
        changed: Its time of change, nanoseconds.
        sha256: Hash of the file, 32 bytes: equal for copies under other names.
        dhash: 64 bits, one per pair of neighbours in a 9 x 8 reduction: is the left one brighter? Survives resizing,
            another compression and a change of brightness. None if only the file's hash was asked for.
        thumbnail: 16 x 16 grey values, row by row; None likewise.
    """

    length: int
    changed: int
    sha256: bytes
    dhash: int | None
    thumbnail: bytes | None


def difference_hash(grey: Image.Image) -> int:
    """The 64-bit difference hash of a grey image (Krawetz' dHash)."""
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BOX, reducing_gap=3.0), dtype=np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] < small[:, :-1]).tobytes(), "big")


def fingerprint(path: Path, *, look: bool = True) -> Fingerprint:
    """Read one image file; with `look` it is decoded too. The image is one that was found to be decodable.

    Raises:
        OSError: it cannot be read.
    """
    status, data = read_file(str(path))
    dhash, thumbnail = None, None
    if look:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("L", (8 * THUMBNAIL, 8 * THUMBNAIL))  # a JPEG is decoded at an eighth of its size
            grey = grey_of(image)
        dhash = difference_hash(grey)
        side = (THUMBNAIL, THUMBNAIL)
        thumbnail = grey.resize(side, Image.Resampling.BOX, reducing_gap=3.0).tobytes()
    digest = hashlib.sha256(data).digest()
    return Fingerprint(status.st_size, status.st_mtime_ns, digest, dhash, thumbnail)


def grey_of(image: Image.Image) -> Image.Image:
    """The image in 8-bit grey; deeper ones are scaled from their darkest to their brightest value."""
    if image.mode.startswith(("I", "F")):  # 16 bits and more: `convert` would clip nearly all of it to white
        values = np.asarray(image, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        return Image.fromarray(((values - low) * (255.0 / max(high - low, 1e-9))).astype(np.uint8))
    return image.convert("L")


def distances(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Number of differing bits of every pair, shape (len(a), len(b))."""
    counts: NDArray[np.uint8] = np.bitwise_count(a[:, None] ^ b[None, :])
    return counts


def similarity(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Correlation of thumbnails pair by pair, shape (n,), both of shape (n, 256).

    1 is the same image but for some brightness and contrast; beyond an eighth of the range, or half more contrast, it
    is another one. Two images without contrast are alike if their grey is.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_difference = np.abs(x.mean(axis=1) - y.mean(axis=1))
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    contrasts = np.sort([x.std(axis=1), y.std(axis=1)], axis=0)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    correlation: NDArray[np.float64] = np.divide((x * y).sum(axis=1), norms, out=np.zeros(len(x)), where=norms > 0)
    correlation[(mean_difference > 32) | (contrasts[1] > 1.5 * contrasts[0])] = 0.0
    return np.where(contrasts[1] < 1.0, mean_difference <= 2.0, correlation)
