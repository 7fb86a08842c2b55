"""Whether the data of a PNG is all of its pixels. Checksums do not tell: they are right for whatever was written.

Pillow shows rows that are not there as black, without a word; other gaps stop it, in the middle of training.
"""

import struct
from collections.abc import Iterator

from isal import igzip_lib, isal_zlib  # a third of the time of zlib, which is most of the time that an image takes

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_PALETTE = 3  # the colour type whose values stand for those of the PLTE chunk
_FILTERS = 5  # a row begins with the number of its filter, 0 to 4
# Interlaced images come in seven passes: first column, first row, and how many columns and rows lie between.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def check_pixels(data: bytes) -> None:
    """Read the pixels of a PNG (https://www.w3.org/TR/png-3), without undoing its filters.

    Args:
        data: A file that Pillow has opened, so that its header is sound.

    Raises:
        ValueError: rows are missing, data that is no pixels, or a palette is not there; says which.
    """
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    chunks = dict[bytes, list[bytes]]()
    for kind, content in _chunks(data):
        chunks.setdefault(kind, []).append(content)
    if colour == _PALETTE and b"PLTE" not in chunks:
        raise ValueError("its palette is missing")
    passes = list(_passes(width, height, depth * _CHANNELS[colour], bool(interlaced)))
    expected = sum(stride * rows for stride, rows in passes)
    try:
        # One byte more: only what goes on to its end has its own checksum compared.
        pixels = isal_zlib.decompressobj().decompress(b"".join(chunks.get(b"IDAT", [])), expected + 1)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub calls the class an instance
        raise ValueError(f"its data is no pixels: {error}") from error
    if len(pixels) < expected:
        raise ValueError(f"image file is truncated: {len(pixels)} of {expected} bytes of pixels")
    start = 0
    for stride, rows in passes:
        end = start + stride * rows
        if max(pixels[start:end:stride]) >= _FILTERS:
            raise ValueError("its data is no pixels: a row has an unknown filter")
        start = end


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the chunks up to the last with pixels, which must follow each other."""
    place, kind = 8, b""
    while place + 12 <= len(data):
        before, kind = kind, data[place + 4 : place + 8]
        if before == b"IDAT" != kind:
            return
        length = int.from_bytes(data[place : place + 4], "big")
        yield kind, data[place + 8 : place + 8 + length]
        place += 12 + length


def _passes(width: int, height: int, bits: int, interlaced: bool) -> Iterator[tuple[int, int]]:
    """Bytes of a row, its filter's among them, and number of rows, of every pass over the image."""
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            yield 1 + (columns * bits + 7) // 8, rows
