"""Questions that say in so many words which form their answer has: options, boxes, a map, "select all that apply"."""

import re
from dataclasses import dataclass

from medvl.choices import options
from medvl.router.patterns import FOLDER, Rule, read_patterns
from medvl.tasks import Task


@dataclass(frozen=True)
class _Forms:
    """The patterns of rules.yaml."""

    arrow_or_braces: re.Pattern[str]
    box: re.Pattern[str]
    choice: re.Pattern[str]
    each: re.Pattern[str]
    json: re.Pattern[str]
    json_list: re.Pattern[str]
    location: re.Pattern[str]
    map: re.Pattern[str]
    mark: re.Pattern[str]
    named: re.Pattern[str]
    only_one: re.Pattern[str]
    select: re.Pattern[str]
    separated: re.Pattern[str]
    several: re.Pattern[str]
    ticked_boxes: re.Pattern[str]


_SHOWS = read_patterns(FOLDER / "rules.yaml", _Forms)


def option_marks(text: str) -> list[re.Match[str]]:
    """The longest run of marks in sequence, A B C, a b c or 1 2 3; empty where there are not two."""
    runs: dict[str, list[re.Match[str]]] = {}  # the mark awaited next -> those before
    best: list[re.Match[str]] = []
    for match in _SHOWS.mark.finditer(text):
        mark = match[1]
        run = [*runs.pop(mark, []), match] if mark in runs else [match] if mark in "Aa1" else []
        if run:
            runs[chr(ord(mark) + 1)] = run
            best = run if len(run) >= max(len(best), 2) else best
    return best


def _has_options(text: str) -> bool:
    return bool(options(text) or option_marks(text))


def _selects(text: str) -> bool:
    if _SHOWS.box.search(text) and not _SHOWS.ticked_boxes.search(text):
        return False
    has_options = _has_options(text)
    selects = _SHOWS.select.search(text) or (has_options and _SHOWS.several.search(text))
    return bool((selects and not (has_options and _SHOWS.only_one.search(text))) or _SHOWS.separated.search(text))


def _maps_boxes(text: str) -> bool:
    maps = bool(_SHOWS.map.search(text) or _SHOWS.arrow_or_braces.search(text))
    has_box = bool(_SHOWS.box.search(text))
    if has_box and _SHOWS.each.search(text) and _SHOWS.named.search(text):
        return True  # "each nucleus with its type and coordinates"
    if not _SHOWS.json.search(text):
        return maps and has_box
    if maps and (has_box or _SHOWS.location.search(text)):
        return True
    return has_box and bool(_SHOWS.each.search(text)) and not _SHOWS.json_list.search(text)


FORMS = (
    Rule("select all that apply", Task.MULTI_LABEL, _selects),
    Rule("listed options", Task.CLASSIFICATION, _has_options),
    Rule("a map of boxes", Task.INSTANCE_DETECTION, _maps_boxes),
    Rule("boxes", Task.DETECTION, _SHOWS.box.search),
    Rule("a choice", Task.CLASSIFICATION, _SHOWS.choice.search),
)
