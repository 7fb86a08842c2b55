"""Looking at images, and only at those whose files have changed since the last run."""

import hashlib
import importlib.metadata
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import PIL
from PIL import Image

import medvl.images
import medvl.png_data
from medvl.errors import DataError
from medvl.files import read_file
from medvl.sharegpt import write_atomic
from medvl.sources.base import Sample, Source, SourceFile, image_path
from medvl.sources.places import OutsideError
from preprocess import decoding, scan_files, scans
from preprocess.decoding import AS_IT_IS, ImageInfo, Rendering, examine
from preprocess.scan_files import ScanOptions
from preprocess.scans import frames_in, is_scan, split_frame

Copies = Callable[[str], str]
CACHE = ".pictures.msgpack"
COPIES = "copies"  # folder of normalised images, in the output folder
_READERS = ("nibabel", "pydicom", "pyjpegls", "pylibjpeg-openjpeg", "python-gdcm")


def _installed(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return ""


# Other rules, another Pillow or another reader of scans may find something else.
_MODULES = (decoding, scan_files, scans, medvl.images, medvl.png_data)
_RULES = b"".join(Path(str(rules.__file__)).read_bytes() for rules in _MODULES)
_VERSION = f"{PIL.__version__} {hashlib.sha256(_RULES).hexdigest()} {' '.join(map(_installed, _READERS))}"
_LONGEST_NAME = 200  # bytes of the 255 that a file system takes
_SAVED_EVERY = 20.0  # seconds: so much work a crash can cost


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """An image as it was found, and the state of its file then.

    Attributes:
        place: Path of the file.
        length: Its size, bytes; -1 if it was not there.
        changed: Its time of change, nanoseconds.
        sha256: Hash of its content, if that was asked for.
        image: What was found.
    """

    place: str
    length: int
    changed: int
    sha256: bytes | None
    image: ImageInfo


class _Cache(msgspec.Struct):
    version: str
    seen: list[Seen]


class ImageCache:
    """All images seen in this run and those before, by path; kept in a file."""

    def __init__(self, folder: Path, rendering: Rendering = AS_IT_IS) -> None:
        """Read what earlier runs found; nothing if there is none or it is damaged, which costs time and no more.

        Args:
            folder: Where the file is.
            rendering: As in `look_at`. Runs with another one found other things.
        """
        self._path, self._version = folder / CACHE, f"{_VERSION} {rendering}"
        self._saved, self._fresh = time.monotonic(), False
        self.seen: dict[str, Seen] = {}
        try:
            cache = msgspec.msgpack.decode(self._path.read_bytes(), type=_Cache)
        except (FileNotFoundError, msgspec.DecodeError):
            return
        if cache.version == self._version:
            self.seen = {seen.place: seen for seen in cache.seen}

    def add(self, found: Iterable[Seen]) -> None:
        """Take in what was found, and save it now and then."""
        for seen in found:
            if self.seen.get(seen.place) != seen:
                self.seen[seen.place] = seen
                self._fresh = True
        if time.monotonic() - self._saved > _SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Write the file if there is anything new."""
        if self._fresh:
            # Images that this run leaves out stay known. Missing ones are looked for every time.
            kept = [seen for seen in self.seen.values() if seen.length >= 0]
            write_atomic(self._path, msgspec.msgpack.encode(_Cache(self._version, kept)))
        self._saved, self._fresh = time.monotonic(), False


def look_at(
    places: Sequence[str],
    copies: Copies,
    known: Mapping[str, Seen],
    *,
    hashes: bool = False,
    rendering: Rendering = AS_IT_IS,
) -> Seen:
    """The image at the first of some places that has one; looked at if it is not known, or its file has changed.

    Args:
        places: Where it may be.
        copies: Path of an image -> path of its normalised copy if it needs one.
        known: What was found before.
        hashes: Whether a file counts as unchanged by its content, not by size and time of change.
        rendering: How images are shown.
    """
    for place in places:
        # A copy elsewhere is of a folder that this one was duplicated from.
        if (seen := known.get(place)) and seen.image.path in (place, copies(place)) and _unchanged(seen, hashes):
            return seen
        try:
            status, data = read_file(split_frame(place)[0])
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            continue
        except OSError as error:  # no permission, a name that is too long, a disk that fails: looked at again next time
            return Seen(place, -1, -1, None, ImageInfo(place, None, "IMAGE_UNREADABLE", f"{place}: {error.strerror}"))
        # Read after its state was noted: a file that changes in between is looked at again next time.
        digest = hashlib.sha256(data).digest() if hashes else None
        return Seen(place, status.st_size, status.st_mtime_ns, digest, examine(place, copies(place), data, rendering))
    return Seen(places[0], -1, -1, None, ImageInfo(places[0], None, "IMAGE_MISSING", f"{places[0]} does not exist"))


def _unchanged(seen: Seen, hashes: bool) -> bool:
    try:
        if hashes:
            if seen.sha256 is None or seen.sha256 != hashlib.sha256(read_file(split_frame(seen.place)[0])[1]).digest():
                return False
        else:
            status = os.stat(split_frame(seen.place)[0])  # noqa: PTH116
            if (status.st_size, status.st_mtime_ns) != (seen.length, seen.changed):
                return False
    except OSError:
        return False
    return seen.image.path == seen.place or Path(seen.image.path).is_file()  # or its copy was deleted


def look_at_images(
    samples: Sequence[Sample],
    *,
    source: Source,
    root: Path,
    known: Mapping[str, Seen],
    out: Path,
    hashes: bool,
    rendering: Rendering = AS_IT_IS,
) -> dict[str, Seen]:
    """The images of some rows of one file, by their names in the rows."""
    file, seen = samples[0].file, {}
    tree, copies = f"{root}/", f"{out}/{COPIES}"

    def copy_of(path: str) -> str:
        # Images may lie elsewhere than what names them; a doubled slash would be another name for the same copy.
        return f"{copies}/{_without_hash(_shortened(path.removeprefix(tree).lstrip('/')))}.png"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is the limit here
        for name in dict.fromkeys(name for sample in samples for name in sample.images):
            with suppress(OutsideError):  # `convert` meets the same error and reports it with the record
                seen[name] = look_at(source.places(file, name), copy_of, known, hashes=hashes, rendering=rendering)
    return seen


def _without_hash(path: str) -> str:
    """A path without #, behind which addresses end, and unlike that of any image that has - in its place."""
    if "#" not in path:
        return path
    return f"{path.replace('#', '-')}-{hashlib.md5(os.fsencode(path), usedforsecurity=False).hexdigest()[:8]}"


def _shortened(path: str) -> str:
    """A path whose name a file system still takes with what is added while it is written; others as they are."""
    folder, _, name = path.rpartition("/")
    if len(os.fsencode(name)) <= _LONGEST_NAME:
        return path
    start = os.fsencode(name)[: _LONGEST_NAME - 33].decode(errors="ignore")
    return f"{folder}/{start}-{hashlib.md5(os.fsencode(name), usedforsecurity=False).hexdigest()}"


def all_frames(
    source: Source, rows: Mapping[SourceFile, Sequence[Sample]], options: ScanOptions
) -> dict[SourceFile, list[Sample]]:
    """Rows in which a DICOM or NIfTI file is named once for each of its frames; others as they are."""
    return {file: [_framed(source, sample, options) for sample in samples] for file, samples in rows.items()}


def _framed(source: Source, sample: Sample, options: ScanOptions) -> Sample:
    titles = sample.titles or ("",) * len(sample.images)
    shown = [(f"{name}#{frame}" if frames > 1 else name, f"{title}-{frame}" if title and frames > 1 else title)
             for name, title in zip(sample.images, titles, strict=True)
             for frames in [_frames(source, sample, name, options)] for frame in range(frames)]  # fmt: skip
    names, titles = tuple(name for name, _ in shown), tuple(title for _, title in shown)
    return msgspec.structs.replace(sample, images=names, titles=titles if sample.titles else ())


def _frames(source: Source, sample: Sample, name: str, options: ScanOptions) -> int:
    """Number of frames of a file; 1 where it has no more, names one already, or cannot be read, which is told later."""
    if not is_scan(name, b""):
        return 1
    with suppress(OSError, DataError):
        path = str(image_path(source, sample.file, name))
        return frames_in(path, read_file(path)[1], options)
    return 1
