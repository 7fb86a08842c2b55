"""Image archives of a source become the folder of its images, whole or not at all, and never by way of a shell.

An archive is untrusted: a member that leads out of the folder, a link or a bomb refuses it before anything is written.
"""

import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.progress import track

from medvl.errors import DataError
from medvl.sharegpt import write_atomic
from medvl.sources.base import Source, SourceFile

_SOURCE = ".archives"  # in the folder under way: which archives it comes from
_LITTER = re.compile(r"(^|/)(__MACOSX/|\._|\.DS_Store$|Thumbs\.db$|desktop\.ini$)")


@dataclass(frozen=True)
class Limits:
    """What one dataset's archives may hold; far above FLARE's largest (about 16,000 images, some GB).

    Attributes:
        members: Number of files.
        bytes: Size of all files, unpacked.
        ratio: Unpacked to packed size, for archives that unpack to more than `small` bytes. Images hardly shrink.
        small: See `ratio`.
    """

    members: int = 500_000
    bytes: int = 200 * 2**30
    ratio: float = 100.0
    small: int = 64 * 2**20


@dataclass(frozen=True)
class _Member:
    archive: Path
    info: zipfile.ZipInfo
    target: PurePosixPath  # below the image folder


def unpack_all(source: Source, files: Sequence[SourceFile], limits: Limits | None = None) -> list[Path]:
    """Unpack the archives of every dataset whose image folder is absent or holds no file. Returns the folders made.

    Raises:
        DataError: archives that were refused, a line for each; nothing of them was written.
    """
    made, refused = [], []
    for file in files:
        folder, archives = source.archives(file)
        if not archives or _has_files(folder):
            continue
        try:
            unpack(archives, folder, limits or Limits())
            made.append(folder)
        except DataError as error:
            refused.append(str(error))
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:  # the last: a compression
            names = ", ".join(map(str, archives))
            refused.append(f"{names}: {error}; download it again, or unpack it yourself to {folder}")
    if refused:
        raise DataError("\n".join(refused))
    return made


def unpack(archives: Sequence[Path], folder: Path, limits: Limits) -> None:
    """Unpack `archives` to `folder`.

    Members are written to a folder beside it that gets its name when all are there. What an interrupted run left there
    is used again after its checksum was compared.

    Raises:
        DataError: a member is refused, or a limit is exceeded.
        OSError: the disk is full or not writable.
        zipfile.BadZipFile: an archive is damaged.
    """
    members = [member for archive in archives for member in _members(archive, folder.name)]
    if not members:
        raise DataError(f"{', '.join(map(str, archives))}: no file in it; download it again, or remove it")
    _check_limits(members, archives, limits, folder)
    under_way = folder.with_name(f".{folder.name}.unpacking")
    source = "\n".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in archives).encode()
    marker = under_way / _SOURCE
    if under_way.exists() and not (marker.is_file() and marker.read_bytes() == source):
        shutil.rmtree(under_way)  # of other archives
    write_atomic(marker, source)
    readers = {archive: zipfile.ZipFile(archive) for archive in archives}
    try:
        for member in track(
            members, f"unpacking {folder.parent.name}/{archives[0].name}", console=Console(stderr=True)
        ):
            _write(readers[member.archive], member.info, under_way / member.target)
    finally:
        for reader in readers.values():
            reader.close()
    marker.unlink()
    os.sync()  # the new name must not reach the disk before the images
    if folder.exists():  # an archive without files left it
        shutil.rmtree(folder)
    under_way.rename(folder)


def _has_files(folder: Path) -> bool:
    """Whether a folder holds anything but folders and what tools leave behind."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return any(not _LITTER.search(path.relative_to(folder).as_posix()) for path in found)


def _members(archive: Path, images: str) -> Iterator[_Member]:
    """The files of an archive; their place below the image folder, which most archives hold as their top folder."""
    with zipfile.ZipFile(archive) as reader:
        for info in reader.infolist():
            name = info.filename.replace("\\", "/")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(f"{archive}: {info.filename!r} is a link or device, not an image; nothing was unpacked")
            parts = PurePosixPath(name).parts
            if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in info.orig_filename:
                raise DataError(f"{archive}: {info.orig_filename!r} leads out of the folder; nothing was unpacked")
            if info.is_dir() or _LITTER.search(name):
                continue
            if info.flag_bits & 1:
                raise DataError(f"{archive}: {info.filename!r} is encrypted; unpack it yourself")
            inner = parts[parts.index(images) + 1 :] if images in parts[:-1] else parts
            yield _Member(archive, info, PurePosixPath(*inner))


def _check_limits(members: Sequence[_Member], archives: Sequence[Path], limits: Limits, folder: Path) -> None:
    names = ", ".join(path.name for path in archives)
    where = f"{folder.parent}: {names}"
    total = sum(member.info.file_size for member in members)
    packed = sum(path.stat().st_size for path in archives)
    free = shutil.disk_usage(folder.parent).free
    targets = {member.target for member in members}
    problems = {
        f"hold {len(members)} files, more than {limits.members}": len(members) > limits.members,
        f"unpack to {total} bytes, more than {limits.bytes}": total > limits.bytes,
        f"unpack to {total / max(packed, 1):.0f} times their size, more than {limits.ratio:g}": total > limits.small
        and total > limits.ratio * packed,
        f"need {total} bytes, but the disk has {free}": total > free,
        "hold a file twice": len(targets) < len(members),
        f"hold {_SOURCE}, a name that unpacking uses itself": PurePosixPath(_SOURCE) in targets,
    }
    for problem, found in problems.items():
        if found:
            raise DataError(
                f"{where} {problem}; nothing was unpacked. Look at them, and unpack them yourself if they are right"
            )


def _write(reader: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    if path.is_file() and path.stat().st_size == info.file_size and zlib.crc32(path.read_bytes()) == info.CRC:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with reader.open(info) as packed, path.open("wb") as unpacked:  # reads no more than the size that was checked
        shutil.copyfileobj(packed, unpacked, 2**20)
