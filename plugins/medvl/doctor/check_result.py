"""What a check of `medvl doctor` says."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "problem"]

REINSTALL = "make install (or: uv pip install --constraint constraints.txt --editable '.[train,router]')"


@dataclass(frozen=True)
class CheckResult:
    """One line of the report; a `problem` stops training, a `warning` harms or slows some of it."""

    level: Level
    subject: str
    message: str
    cure: str = ""
