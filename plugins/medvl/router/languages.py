"""Questions in French, German, Spanish, Italian, Portuguese and Chinese: languages.yaml.

Other languages are not read: such a question goes on to GLiClass, and to `general` where that is not sure.
"""

import re
from dataclasses import dataclass

from medvl.router.patterns import FOLDER, read_patterns, read_rules
from medvl.tasks import Task


@dataclass(frozen=True)
class _Languages:
    english: re.Pattern[str]
    image: re.Pattern[str]


_FILE = FOLDER / "languages.yaml"
_SHOWS, _RULES = read_patterns(_FILE, _Languages), read_rules(_FILE)


def foreign_task(text: str) -> Task | None:
    """The task that a text in another language asks for; None for English, or where no rule holds."""
    if len(_SHOWS.english.findall(text)) > 1 or not _SHOWS.image.search(text):
        return None
    return next((rule.task for rule in _RULES if rule.matches(text)), None)
