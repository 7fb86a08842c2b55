"""What people call their splits."""

import re

from medvl.sources.base import Split
from medvl.sources.given import SPLITS

_SPELLINGS = {"train": "train", "training": "train", "trn": "train", "tr": "train", "val": "val", "valid": "val",
              "validation": "val", "validate": "val", "dev": "val", "development": "val", "eval": "val", "test": "test",
              "testing": "test", "tests": "test", "tst": "test", "ts": "test"}  # fmt: skip
EXPECTED = "train, val, validation, dev, test"


def split_called(name: str) -> Split | None:
    """The split that a value of a column names; None where that is no name of one.

    >>> split_called("Validation").name
    'val'
    """
    word = re.sub(r"[\W_\d]+$", "", name.strip()).lower()
    return SPLITS[_SPELLINGS[word]] if word in _SPELLINGS else None


def split_in(path: str) -> str:
    """The one split that the words of a path name; empty where they name none, or several."""
    words = (word.lower() for word in re.split(r"[^A-Za-z]+", path))
    found = {_SPELLINGS[word] for word in words if word in _SPELLINGS and len(word) > 2}
    return found.pop() if len(found) == 1 else ""
