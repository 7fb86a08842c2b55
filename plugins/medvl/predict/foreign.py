"""Files that hold something else than questions: which keys they have, and which were expected."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from medvl.sharegpt import Record
from medvl.sources.flare import FLARE
from medvl.wording import listed

QUESTION_KEYS = FLARE.question_keys  # of the challenge, in whose form others write questions too
EXPECTED = (
    f"expected a JSON list with {' and '.join(QUESTION_KEYS)} in each row, as FLARE's question files, or with "
    f"{', '.join(map(str, Record.__struct_encode_fields__))}, as preprocess scripts write it"
)
_SHOWN_KEYS, _SHOWN_FILES = 12, 3


def foreign_keys(path: Path) -> str | None:
    """What stands in a JSON or JSONL file, if it can be read and its first row is none of a question file.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "chat.json").write_text('[{"messages": [{"role": "user", "content": "Hi"}]}]')
    ...     foreign_keys(Path(folder, "chat.json"))
    'rows with the keys messages'
    """
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    first_line = content.lstrip().split(b"\n", 1)[0]
    for text, rows in ((content, "rows"), (first_line, "lines")):
        try:
            return _described(msgspec.json.decode(text), rows)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return None


def foreign_files(folder: Path) -> str:
    """A line for each of the first JSON files of a folder without questions; empty where it has none."""
    files = sorted(path for path in folder.rglob("*.json*") if path.is_file()) if folder.is_dir() else []
    lines = [f"\n  {path.name}: {found}" for path in files if (found := foreign_keys(path))][:_SHOWN_FILES]
    return "".join((*lines, f"\n  {EXPECTED}")) if lines else ""


def _described(content: Any, rows: str) -> str | None:
    if isinstance(content, dict) and rows == "rows":
        inner = next(((key, value[0]) for key, value in content.items() if _are_objects(value)), None)
        if inner and _is_question(inner[1]):
            return None
        below = f", and {_listed(inner[1])} in its {inner[0]}" if inner else ""
        return f"one object with the keys {_listed(content)}{below}"
    first = content[0] if isinstance(content, list) and content else content
    if isinstance(first, dict):
        return None if _is_question(first) else f"{rows} with the keys {_listed(first)}"
    return f"{rows} of the type {type(first).__name__}"


def _is_question(row: dict[str, Any]) -> bool:
    return set(QUESTION_KEYS) <= set(row)


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _listed(keys: Iterable[str]) -> str:
    return listed(list(keys), _SHOWN_KEYS)
