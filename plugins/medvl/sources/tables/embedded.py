"""Images that stand in the data itself, as bytes or as text, are written out once, under the hash of their content."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medvl.sources.tables.base import Row

_KINDS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"BM": ".bmp", b"II*\0": ".tif",
          b"MM\0*": ".tif", b"RIFF": ".webp"}  # fmt: skip
# What the commonest kinds begin with in base64; a shorter text is none.
_BASE64 = re.compile(r"(?:data:image/[\w.+-]+;base64,)|(?=(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR)[A-Za-z0-9+/\s]{100})")


def written_out(rows: Iterable[Row], folder: Path) -> list[dict[str, Any]]:
    """Rows in which every image is the path of a file; those that stood in them are written to `folder`.

    What is none of the known kinds of image gets the suffix .bin, and is refused when it is looked at.
    """
    return [{column: _without_bytes(value, folder) for column, value in row.items()} for row in rows]


def _without_bytes(value: Any, folder: Path) -> Any:
    if isinstance(value, bytes):
        return str(_file(value, folder))
    if isinstance(value, str) and (match := _BASE64.match(value)):
        try:
            return str(_file(base64.b64decode("".join(value[match.end() :].split()), validate=True), folder))
        except binascii.Error:
            return value
    if isinstance(value, list):
        return [_without_bytes(item, folder) for item in value]
    if isinstance(value, Mapping) and "bytes" in value and "path" in value:
        return _without_bytes(value["bytes"], folder) if value["bytes"] else value["path"]
    return value


def _file(content: bytes, folder: Path) -> Path:
    from medvl.sharegpt import write_atomic

    suffix = next((suffix for start, suffix in _KINDS.items() if content.startswith(start)), ".bin")
    path = folder / f"{hashlib.sha256(content).hexdigest()[:32]}{suffix}"
    if not path.exists():
        write_atomic(path, content)
    return path.resolve()
