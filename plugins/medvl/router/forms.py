"""Questions that say in so many words which form their answer has: options, boxes, a map, "select all that apply"."""

import re

from medvl.choices import options
from medvl.router.patterns import Rule, any_of, pattern_of
from medvl.tasks import Task

LABEL = any_of(
    r"labels? findings? abnormalit\w+ diagnos[ei]s diseases? conditions? patholog(?:y|ies) categor(?:y|ies) classes"
    r" options?"
    r" answers? letters? choices? statements? features? signs? attributes? tags? structures? types?"
)
_has_box = pattern_of(
    r"bounding[ -]?box(?:es)?", r"bbox(?:es)?", r"box(?:es)?", "coordinates?", r"x_?min", r"x_?1", "x0", "rectangles?",
    "corners?",
    "xyxy", "xywh", "left, top, right", "top, left, bottom",
)  # fmt: skip
# "(A) yes", "a. yes", "1: yes", "A - yes"
_MARK = re.compile(r"(?<![\w'\"])[(\[]?([A-Za-z1-9])\s?(?:[:.)\]](?=\s|[A-Za-z])|\s[-=\u2013]\s)", re.ASCII)


def option_marks(text: str) -> list[re.Match[str]]:
    """The longest run of marks in sequence, A B C, a b c or 1 2 3; empty where there are not two."""
    runs: dict[str, list[re.Match[str]]] = {}  # the mark awaited next -> those before
    best: list[re.Match[str]] = []
    for match in _MARK.finditer(text):
        mark = match[1]
        run = [*runs.pop(mark, []), match] if mark in runs else [match] if mark in "Aa1" else []
        if run:
            runs[chr(ord(mark) + 1)] = run
            best = run if len(run) >= max(len(best), 2) else best
    return best


def _has_options(text: str) -> bool:
    return bool(options(text) or option_marks(text))


_select = pattern_of(
    r"all (?:\w+ )?(?:that|which) (?:apply|applies|are (?:present|true|correct|visible|applicable))",
    any_of("select choose mark tick pick check circle") + " "
    + any_of("all every any each as_many one_or_more multiple several"),
    any_of("one_or_more more_than_one multiple several any_number_of") + rf" (?:\w+ )?(?:{LABEL}|selections?)"
    r"(?=[^.?!]*\b(?:may|can|could|might|are|is|for|possible|allowed|assigned|apply|correct|from)\b)",
    any_of("one_or_more more_than_one multiple several") + " of (?:these|them|the)",
    r"\((?:one or more|any number|all that apply|multiple|several)\b[^)]*\)",
    "combination of",
    "(?<!describe )(?<!report )(?<!summari[sz]e )all (?:the )?" + any_of("applicable relevant correct matching true"),
    r"(?:which|what) of (?:the|these|those) (?:\w+ ){0,4}" + any_of("apply are can_be do_you_see"),
    "every " + any_of("correct applicable matching true"),
    r"multi[ -]?(?:label|select|choice answers)",
)  # fmt: skip
_separated = pattern_of(
    r"semi-?colons?", r"separated? (?:\w+ ){0,3}(?:by|with) a? ?(?:commas?|semicolons?)",
    r"comma[ -](?:separated|delimited)",
)  # fmt: skip
# "There can be more than one." says nothing of labels by itself, but it does behind a list of options.
_several = pattern_of(
    any_of("can could may might") + " be " + any_of("more_than_one several multiple any_number") + "(?! ?[^.;,:!?) ])",
    any_of("more_than_one several multiple") + " " + any_of("can could may might is are") + " "
    + any_of("be_(?:correct|true|right|present) correct true apply allowed possible"),
)  # fmt: skip
_only_one = pattern_of("(?:all|none|both) of (?:the above|these)", "both A and B", "(?:only|exactly|just) one")
_ticks_boxes = pattern_of("(?:tick|check|mark) (?:all|every|each|any) (?:the )?box(?:es)?")


def _selects(text: str) -> bool:
    if _has_box(text) and not _ticks_boxes(text):
        return False
    options = _has_options(text)
    selects = _select(text) or (options and _several(text))
    return (selects and not (options and _only_one(text))) or _separated(text)


_map = pattern_of(
    "mapping", "(?:json|an?) maps?", "maps? (?:of|from)", r"map(?:s|ped)?\b[^.?!]*\bto",
    "dict(?:ionary|ionaries)?", "keys?", "keyed", "identifiers?", "ids?", "json object", "inventory", "karyotype",
    "chromosomes?", "instance (?:detection|segmentation)",
    r"(?:by|per|for each)[ -](?:\w+ )?(?:type|class|category|species|label|stage)",
)  # fmt: skip
_arrow_or_braces = re.compile(r"->|=>|\u2192|\{\s*\"?[\w\s]+\"?\s*:\s*\[").search
_json, _json_list = pattern_of("json"), pattern_of("json (?:list|array)")
_each = pattern_of("each", "every", "all", "individual", "separately", "respective", "one by one")
_location = pattern_of("locations?", "positions?")


def _maps_boxes(text: str) -> bool:
    maps = _map(text) or _arrow_or_braces(text) is not None
    if _json(text):
        return (maps and (_has_box(text) or _location(text))) or (
            _has_box(text) and _each(text) and not _json_list(text)
        )
    return maps and _has_box(text)


_choice = pattern_of(
    "yes ?(?:or|/|,) ?no", "true or false", r"(?:options?|choices?|candidates?|classes|categories) ?(?:are\b|:.?)",
    rf"(?:choose|select|pick) (?:one|from|between|among|a single|only|the (?:best|correct|right|most)|an? {LABEL})",
    "(?:one|single|best|correct) (?:letter|option|choice|answer|category|class)",
    "which of (?:the following|these|those)", "(?:with|by|the) (?:the )?(?:letter|option)",
    "into (?:one of|these|the following|either)", "one of (?:the following|these|:)",
    any_of("decide choose distinguish differentiate discriminate") + " between",
    r"\w+: (?:[\w' -]{2,30}, ){1,12}(?:or )?[\w' -]{2,30} or [\w' -]{2,30}\?$",
)  # fmt: skip

FORMS = (
    Rule("select all that apply", Task.MULTI_LABEL, _selects),
    Rule("listed options", Task.CLASSIFICATION, _has_options),
    Rule("a map of boxes", Task.INSTANCE_DETECTION, _maps_boxes),
    Rule("boxes", Task.DETECTION, _has_box),
    Rule("a choice", Task.CLASSIFICATION, _choice),
)
