"""Looking at pictures: can they be decoded, how large are they, do they stand upright."""

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

# Larger ones are refused rather than decoded: four times Pillow's own warning level, far above any FLARE picture.
MAX_PIXELS = 4 * 89_478_485
_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Picture:
    """What was found at a path.

    Attributes:
        path: File to train on: the original, or its upright copy.
        size: (width, height), pixels, EXIF orientation applied; None if the picture is unusable.
        problem: Code of what is wrong with it (`preprocess.report.CODES`), or None. EXIF_ROTATED has been mended.
        detail: The problem in words.
    """

    path: Path
    size: tuple[int, int] | None
    problem: str | None = None
    detail: str = ""


def inspect(path: Path, upright: Path) -> Picture:
    """Decode a picture in full, since a truncated JPEG passes Pillow's `verify()`.

    LLaMA-Factory does not apply EXIF orientation, so the model would see a rotated picture lying on its side while
    its boxes stand upright: such a picture is copied upright, without loss, to `upright`/<stem>.png.
    """
    if not path.is_file():
        return Picture(path, None, "IMAGE_MISSING", f"{path} does not exist")
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                return Picture(path, None, "IMAGE_TOO_LARGE", f"{path} has {image.width} x {image.height} pixels")
            image.load()
            if image.getexif().get(_ORIENTATION_TAG, 1) in (0, 1):
                return Picture(path, image.size)
            turned = ImageOps.exif_transpose(image)
            upright.mkdir(parents=True, exist_ok=True)
            copy = upright / f"{path.stem}.png"
            turned.save(copy)
            return Picture(copy, turned.size, "EXIF_ROTATED", f"{path} is rotated by EXIF; copied upright to {copy}")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow's decoders raise
        return Picture(path, None, "IMAGE_UNREADABLE", f"{path}: {error}")


def _inspect(upright: Path, item: tuple[Path, str]) -> Picture:
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    return inspect(item[0], upright / item[1])


def inspect_all(items: Iterable[tuple[Path, str]], upright: Path, workers: int) -> dict[Path, Picture]:
    """Every picture once, in worker processes, with a progress bar on stderr.

    Args:
        items: Path of a picture, and the folder below `upright` for its copy if it needs one.
        upright: Folder for upright copies.
        workers: Number of processes; 1 works in this one.
    """
    unique = dict(items)
    console = Console(stderr=True)
    look = partial(_inspect, upright)
    if workers <= 1 or len(unique) < 64:  # a pool costs more than that few pictures
        return dict(
            zip(unique, track(map(look, unique.items()), "pictures", len(unique), console=console), strict=True)
        )
    # Forking is unsafe beside the progress bar's thread.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver")) as pool:
        found = pool.map(look, unique.items(), chunksize=32)
        return dict(zip(unique, track(found, "pictures", len(unique), console=console), strict=True))
