"""What a cell says: a text as it stands, a list, numbers."""

import ast
import json
import re
from typing import Any

from medvl.answers import answer_text
from medvl.sources.tables.header import is_blank

_LIST = re.compile(r"\s*[\[({].*[\])}]\s*", re.DOTALL)
_MAX_LITERAL = 1_000_000  # characters


def text(value: Any) -> str:
    """A cell as text, verbatim; empty where nothing stands in it."""
    return "" if is_blank(value) else answer_text(value)


def data(value: Any) -> Any:
    """A cell as data: a text that is a list or an object in JSON or Python becomes one, all else stays."""
    if not isinstance(value, str) or not _LIST.fullmatch(value) or len(value) > _MAX_LITERAL:
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return value
