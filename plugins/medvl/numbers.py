"""The one number that a text states, as `medvl.choices` finds the one choice that it makes."""

import math
import re

from medvl.conclusions import conclusions, is_refusal
from medvl.normalisation import UNSPACED

# A number, or None and the reason why not.
PickedNumber = tuple[float | None, str | None]

_NUMBER = re.compile(
    rf"(?<![^\W{UNSPACED}])(?<!\.)"  # some scripts put no space before a number
    r"(?<![0-9],)[-+\u2212]?(?:(?:[0-9]{1,3}(?>(?:,[0-9]{3})+)|[0-9]++)(?>(?:\.[0-9]++)?)|\.[0-9]++)"
    r"(?:e[-+]?[0-9]{1,3})?(?!,?[0-9])(?![\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2079\u2150-\u215f])(?!(?:st|nd|rd|th)\b)(?:\s?(?P<percent>%))?",
    re.IGNORECASE,
)
_RANGE = re.compile(r"[0-9]\s*+(?>(?:%\s*+)?)(?:-|\u2013|\u2014|~|\bto\b|[至到])\s*[0-9]")
_LIST_MARK = re.compile(r"^[^\S\n]*([0-9]+)[.)][^\S\n]+(?=\S)", re.MULTILINE)


def pick_number(text: str, *, counts: bool = False) -> PickedNumber:
    """The one number a text states: in a conclusion, as its last or first line, as its one percentage, or at all.

    Args:
        text: A model's answer, in one width (`medvl.normalisation.normalise`).
        counts: Whether things are counted. A percentage is no count: "12 cells (95 % sure)" counts twelve.

    Returns:
        (number, None), or (None, reason): `range`, `refusal`, `several_numbers`, `no_number`.

    >>> pick_number("about 1,664 cells")
    (1664.0, None)
    """
    if (mark := _LIST_MARK.search(text)) and mark[1] == "1":  # "12. I counted twice" is no list
        text = _LIST_MARK.sub("", text)
    lines = text.strip().split("\n")
    for stated in (*([candidate] for candidate in conclusions(text)), [lines[0], lines[-1]]):
        short = [candidate for candidate in stated if len(candidate.split()) <= 5]
        if any(_RANGE.search(candidate) for candidate in short):
            return None, "range"
        found = [numbers for candidate in short if len(numbers := _numbers(candidate, counts)) == 1]
        if found:
            return _one(set().union(*found))
    if _RANGE.search(text):
        return None, "range"
    if is_refusal(text):
        return None, "refusal"
    percentages = _numbers(text, counts, only_percentages=True)
    return _one(percentages if len(percentages) == 1 else _numbers(text, counts))


def _one(numbers: set[float]) -> PickedNumber:
    if len(numbers) == 1:
        return numbers.pop(), None
    return None, "several_numbers" if numbers else "no_number"


def _numbers(text: str, counts: bool, *, only_percentages: bool = False) -> set[float]:
    matches = [match for match in _NUMBER.finditer(text) if len(match[0]) <= 32]
    if counts:
        matches = [match for match in matches if not match["percent"]]
    if only_percentages:
        matches = [match for match in matches if match["percent"]]
    written = [match[0].rstrip(" %").replace(",", "").replace("\u2212", "-") for match in matches]
    return {number for number in map(float, written) if math.isfinite(number)}
