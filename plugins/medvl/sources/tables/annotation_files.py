"""Files of annotations as data: JSON and XML, with an error that says what is wrong with the file and where."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import msgspec

from medvl.errors import DataError
from medvl.files import not_utf8, read_file
from medvl.sources.tables.extra import needs
from medvl.sources.tables.splits import split_in


def split_below(path: Path, root: Path) -> str | None:
    """The split that the nearest folder above a file says, of those below a root."""
    folders = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ()
    return next(filter(None, map(split_in, reversed(folders))), None)


def read_bytes(path: Path) -> bytes:
    """The content of a file without a byte order mark; raises `DataError` where it cannot be read."""
    try:
        return read_file(str(path))[1].removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def read_text(path: Path) -> str:
    """The text of a file; raises `DataError` where it cannot be read, or is no UTF-8."""
    content = read_bytes(path)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {not_utf8(content)}") from error


def read_json(path: Path) -> Any:
    """The value of a JSON file; raises `DataError` where it is none."""
    content = read_bytes(path)
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:  # NaN, which is no JSON, but which Python's own writer writes
            return json.loads(content)
        except (ValueError, RecursionError):
            raise DataError(f"{path}: not JSON: {not_utf8(content) or error}") from error


def read_xml(path: Path) -> Element:
    """The root of an XML file; raises `DataError` where it is none, or defines entities, which can be a bomb."""
    needs("defusedxml", "XML")
    from defusedxml import DefusedXmlException, ElementTree  # an extra, for the forms that are XML

    try:
        root: Element = ElementTree.fromstring(read_bytes(path))
    except ParseError as error:
        raise DataError(f"{path}: not XML: {error}") from error
    except DefusedXmlException as error:
        raise DataError(f"{path}: refused: {error}; XML of annotations needs no entities") from error
    return root


def several(things: Iterable[object], shown: int = 5) -> str:
    """The first few of some things, in words.

    >>> several(range(7), 2)
    '0, 1 and 5 more'
    """
    words = [str(thing) for thing in things]
    rest = f" and {len(words) - shown} more" if len(words) > shown else ""
    return ", ".join(words[:shown]) + rest
