"""Rules on the form of the answer that a question asks for. They know no topic, so they hold on unseen datasets.

First what fixes the form in so many words (options, a format of boxes, "select all that apply"), wherever it stands.
Then the wording of each single request; those say less, so they count only in a question about a medical picture, and
of several requests the one with the more specific form of answer decides.
"""

import hashlib
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from medvl.choices import options
from medvl.router.languages import foreign_cue
from medvl.router.request import asked, focus, requests
from medvl.router.scope import asks_for_writing, is_medical_picture
from medvl.tasks import Task


@dataclass(frozen=True)
class Rule:
    """One cue: what it is called, the task it tells, and whether a text shows it."""

    name: str
    task: Task
    matches: Callable[[str], object]


@dataclass(frozen=True)
class Evidence:
    """The rule that decided.

    Attributes:
        task: What it tells.
        rule: Its name.
        strong: Whether it reads the form of the answer off the text, rather than the wording of a request.
    """

    task: Task
    rule: str
    strong: bool


def _pattern(expression: str) -> Callable[[str], object]:
    return re.compile(expression, re.IGNORECASE | re.VERBOSE).search


# --- Forms -----------------------------------------------------------------------------------------------------------

_MARK = re.compile(r"(?<![\w'\"])[(\[]?(?:([A-Za-z])|([1-9]))\s?(?:[:.)\]](?=\s|[A-Za-z])|\s[-=\u2013]\s)", re.ASCII)
_LABEL = r"(?:labels?|findings?|abnormalit\w+|diagnos[ei]s|diseases?|conditions?|patholog(?:y|ies)|categor(?:y|ies)|classes|options?|answers?|letters?|choices?|statements?|features?|signs?|attributes?|tags?|structures?|types?)"  # noqa: E501
_BOX = r"(?:bounding[\s-]?box(?:es)?|bbox(?:es)?|box(?:es)?|coordinates?|x_?min|x_?1|x0|rectangles?|corners?|xyxy|xywh|left,\stop,\sright|top,\sleft,\sbottom)"
_has_box = _pattern(rf"\b{_BOX}\b")


def _has_options(text: str) -> bool:
    """Marks in sequence, A B … or a b … or 1 2 …, of one case."""
    if options(text):
        return True
    runs: dict[str, str] = {}
    for match in _MARK.finditer(text):
        mark = match[1] or match[2]
        for start in ("A", "a", "1"):
            if mark == start:
                runs[start] = mark
            elif start in runs and ord(mark) == ord(runs[start]) + 1:
                runs[start] = mark
                return True
    return False


_select = _pattern(
    rf"""\ball\s(?:\w+\s)?(?:that|which)\s(?:apply|applies|are\s(?:present|true|correct|visible|applicable))
    | \b(?:select|choose|mark|tick|pick|check|circle)\s(?:all|every|any|each|as\smany|one\sor\smore|multiple|several)\b
    | \b(?:one\sor\smore|more\sthan\sone|multiple|several|any\snumber\sof)\s(?:\w+\s)?(?:{_LABEL}|selections?)\b
        (?=[^.?!]*\b(?:may|can|could|might|are|is|for|possible|allowed|assigned|apply|correct|from)\b)
    | \b(?:one\sor\smore|several|more\sthan\sone|many|multiple)\sof\s(?:these|them|the)\b | \bcombination\sof\b
    | \ball\s(?:the\s)?(?:applicable|relevant|correct|matching|true)\b
    | \b(?:which|what)\sof\s(?:the|these|those)\s(?:\w+\s){{0,4}}(?:apply|are|can\sbe|do\syou\ssee)\b
    | \bevery\s(?:correct|applicable|matching|true)\b | \bmulti[\s-]?(?:label|select|choice\sanswers)\b"""
)
_separated = _pattern(
    r"\bsemi-?colons?\b | \b(?:separated?\s(?:\w+\s){0,3}(?:by|with)\sa?\s?(?:commas?|semicolons?)|comma[\s-](?:separated|delimited))\b"
)
_only_one = _pattern(
    r"\b(?:all|none|both)\sof\s(?:the\sabove|these)\b | \bboth\sA\sand\sB\b | \b(?:only|exactly|just)\sone\b"
)


def _selects(text: str) -> bool:
    if _has_box(text) and not _pattern(r"\b(?:tick|check|mark)\s(?:all|every|each|any)\s(?:the\s)?box")(text):
        return False
    if _select(text) and not (_has_options(text) and _only_one(text)):
        return True
    return bool(_separated(text))


_map = _pattern(
    r"""\bmapp?(?:ing|ed|s)?\b(?!\sthe\slesion) | \bdict(?:ionary|ionaries)?\b | \bkeys?\b | \bkeyed\b | ->|\u2192|=> | \bidentifiers?\b | \bids?\b | \bjson\sobject\b
    | \b(?:by|per|for\seach)\s(?:\w+\s)?(?:type|class|category|species|label|stage)\b | \binventory\b | \bkaryotype\b | \bchromosomes?\b
    | \{\s*"?[\w\s]+"?\s*:\s*\[ | \binstance\s(?:detection|segmentation)\b"""
)
_each = _pattern(r"\b(?:each|every|all|individual|separately|respective|one\sby\sone)\b")
_json = _pattern(r"\bjson\b")


_located = _pattern(r"\b(?:locations?|positions?)\b")


def _maps_boxes(text: str) -> bool:
    if _json(text) and _map(text) and _located(text):
        return True
    return bool(
        _has_box(text)
        and (_map(text) or (_json(text) and _each(text) and not re.search(r"\bjson (?:list|array)", text, re.I)))
    )


_choice = _pattern(
    rf"""\byes\s?(?:or|/|,)\s?no\b | \btrue\sor\sfalse\b | \b(?:options?|choices?|candidates?|classes|categories)\s?(?:are|:)
    | \b(?:choose|select|pick)\s(?:one|from|between|among|the\s(?:best|correct|right|most)|a\ssingle|only|an?\s{_LABEL})\b
    | \b(?:one|single|best|correct)\s(?:letter|option|choice|answer|category|class)\b | \bwhich\sof\s(?:the\sfollowing|these|those)\b
    | \b(?:with|by|the)\s(?:the\s)?(?:letter|option)\b | \binto\s(?:one\sof|these|the\sfollowing|either)\b | \bone\sof\s(?:the\sfollowing|these|:) | \b(?:decide|choose|distinguish|differentiate|discriminate)\sbetween\b"""
)

FORMS = (
    Rule("select all that apply", Task.MULTI_LABEL, _selects),
    Rule("listed options", Task.CLASSIFICATION, _has_options),
    Rule("a map of boxes", Task.INSTANCE_DETECTION, _maps_boxes),
    Rule("boxes", Task.DETECTION, _has_box),
    Rule("a choice", Task.CLASSIFICATION, _choice),
)

# --- Requests --------------------------------------------------------------------------------------------------------

_UNIT = r"(?:weeks?|months?|years?|days?|hours?|minutes?|mm|millimet\w+|cm|centimet\w+|m?l|millilit\w+|cc|microns?|micromet\w+|[µu]m|degrees?|percent\w*|pct|%|bpm|mmhg|grams?|kg|hounsfield|hu)"  # noqa: E501
_RATIO = r"(?:percent(?:age)?s?|%|proportions?|fractions?|ratios?|angles?|diameters?|radius|lengths?|widths?|thickness(?:es)?|depths?|volumes?|perimeters?|circumferences?|distances?|index|indices|velocit(?:y|ies)|pressures?|percentiles?|probabilit(?:y|ies)|measurements?|abr|suv\w*|lvef|bmd|ffr)"  # noqa: E501
_SIZE = r"(?:sizes?|areas?|heights?|rates?|ages?|extents?|degrees?|amounts?|levels?|values?|scores?|densit(?:y|ies)|dimensions?|weights?|coverage|burden|intensit(?:y|ies)|severity)"  # noqa: E501
_MODIFIER = r"(?:(?!of\b|for\b|in\b|on\b|to\b|is\b|are\b|and\b|or\b|from\b|with\b|by\b|that\b|number\b|count\b)[\w%()'/-]+\s){0,4}?"
_polar = _pattern(
    r"""(?:^(?!do\san?\b)|^(?![^?]*\b(?:how|what|which|where)\b)[^?]*[,:]\s(?:and\s|but\s|then\s)?)(?:is|are|was|were|does|do|did|has|have|can|could|should|would|will|isn't|aren't|doesn't)\s(?!you\b|we\b)[^?]*\??$
    | (?:^|[,:]\s)(?:would|do|did|can|could)\s(?:you|we)\s(?:say|call|consider|think|see|detect|spot|find|make\sout|observe|agree|suspect|rate|notice|classify|categori[sz]e|recogni[sz]e)\b
    | ^(?:say|call|consider|see|spot|detect|find|identify|make\sout|observe|notice)\s(?:any|an?|signs?|evidence)\b[^?]*\?$
    | \b(?:whether|determine\sif|decide\sif|assess\sif|tell\s(?:me\s)?if|check\sif|judge\sif|evaluate\sif|see\sif|state\sif|say\sif|indicate\sif|if\sthere\sis)\b
    | \w+\sor\s(?:[\w-]+\s?){1,5}\?$ | ^(?!describe|comment|report|summari[sz]e)[^:?]*[:?]\s(?:[\w'\s-]{2,30}[,;/]\s){1,12}(?:or\s)?[\w'\s-]{2,30}[.?]?$ | \b(?:presence|absence)\s(?:or\sabsence\s)?of\b | \b(?:positive|negative|normal|benign|adequate)\sor\s\w+"""  # noqa: E501
)
_units = _pattern(rf"\bhow\smany\s(?:\w+\s)?{_UNIT}(?!\w) | \bnumber\sof\s(?:\w+\s)?{_UNIT}(?!\w)")
_count = _pattern(
    r"""\bhow\smany\b | \bnumbers?\sof\b | \bcounts?\b(?!\son) | \bcounting\b | \btall(?:y|ies)\b | \bquantit(?:y|ies)\b | \bhead\s?count\b | \benumerat(?:e|ion)\b
    | \btotal\s(?:of|number|sum)\b | ^total\s(?!area|volume|length|size)\w+s\b | ^sum\b | \bamount\sof\s(?:the\s|all\s)?(?!\w*(?:sis|ss|us|itis)\b)\w+s\b | \bthe\stotal\s(?!area|volume|length|size)\w+ | \bhow\snumerous\b | \badd\sup\b | \bcensus\b | \bpopulation\s(?:of|in|count)\b
    | \bquantify\s(?:the\s|all\s|visible\s|individual\s|every\s)*(?:[\w-]+\s){0,2}?(?!\w*(?:sis|ss|us|itis)\b)\w+(?:s|i|ae)\b(?!\s(?:of|percentage|rate)) | ^number\b | ^count\b"""  # noqa: E501
)
_measure = _pattern(
    rf"""(?:^|\W){_RATIO}(?:\W|$) | \bhow\s(?:old|large|big|long|wide|thick|deep|tall|far|high|much|small|heavy|fast|advanced\sin\spercent)\b
    | \b(?:in|as|to\sthe\snearest)\s(?:an?\s)?{_UNIT}(?!\w) | \({_UNIT}\)
    | \b(?:estimate|measure|calculate|compute|quantify|determine|predict|report|provide|give|assess|evaluate|state|derive|gauge|supply|what(?:'s|\sis|\sare)|tell\sme)
        \s(?:the\s|an?\s|its\s|this\s|their\s|your\s)?{_MODIFIER}{_SIZE}\b(?!\s(?:group|range|categor|bracket|class|grade|stage))
    | ^(?:the\s)?rates?\sof\b | \b(?:numeric(?:al)?|decimal)\s(?:estimate|value|answer)\b | \bestimates?\sof\b | \bapproximate\b | ^(?:estimate|measure|calculate|compute|quantify|predict)\b(?![^.?]*\b(?:diagnosis|class|category|stage|grade|group|outcome|whether)\b)"""  # noqa: E501
)
_group = _pattern(
    r"\b(?:age|weight|size|risk|severity)\s(?:groups?|ranges?|categor\w+|brackets?|class(?:es)?|bands?)\b"
)
_write = _pattern(
    r"""\b(?:write|generate|compose|dictate|draft|produce|create|prepare|provide|give|issue|supply|deliver|formulate|make|output|return|need|want)\b
    [^.?!]{0,60}?\b(?:report(?!\s(?:of\s|on\s)?the\s(?:number|count|total|quantity|percentage))|findings\b|impressions?|narrative|description|summary|interpretation|captions?|write-?up|commentary|overview)\b
    | \bin\s(?:\w+\s)?detail\b | \b(?:full|complete)\ssentences?\b | \bfree[\s-]text\b | \bin\sprose\b | \b(?:one|two|three|a\sfew|several)\s(?:short\s)?(?:sentences?|paragraphs?)\b"""  # noqa: E501
)
_describe = _pattern(
    r"""\bdescri(?:be|bed|bing|ption)\b | \bsummari[sz]e\b | \bdictat\w+ | \bnarrat\w+ | \bcomment(?:s|ary)?\b | \binterpret(?:ation)?\b | \bexplain\b | \bdiscuss\b | \belaborate\b
    | \bfindings?\b | \bimpressions?\b | \breports?\b | \bcaption\b | \bappearances?\b | \boverview\b | \bobservations?\b | \bnarrative\b
    | \bwhat\s(?:do|can|could|would)\syou\s(?:see|observe|notice|make\sof|report)\b | \bwhat\s(?:you\ssee|is\sseen|is\sshown|can\sbe\sseen|is\svisible|stands\sout)\b
    | \bwhat\s(?:does|do)\b[^?]*\b(?:show|reveal|demonstrate|depict|display|look\slike)\b | \bhow\s(?:does|do)\b[^?]*\b(?:look|appear)\b | \btell\sme\sabout\b | \bwalk\sme\sthrough\b | \bread\sthis\b"""  # noqa: E501
)
_list_all = _pattern(
    rf"""\b(?:list|name|identify|state|give|indicate|enumerate|mention|report|note|provide|assign|label)\b[^.?!]*\b(?:all|every|each|any|multiple)\b[^.?!]*\b{_LABEL}\b
    | \b(?:which|what)\s(?:are\s)?(?:all\s)?(?:the\s)?(?:\w+\s)?(?:abnormalities|diseases|conditions|pathologies|diagnoses|labels|disorders|lesion\stypes|cell\stypes)\b"""  # noqa: E501
)
_which = _pattern(
    r"""\bwhich\b | \b(?:classify|categori[sz]e|grade|stage|diagnose|identify|recogni[sz]e|name|differentiate|distinguish|triage)\b
    | \b(?:what|state|give|provide|determine|assign|judge|assess|rate|evaluate|tell\sme|establish|select|most\s(?:likely|probable|appropriate))\b[^.?!]*\b(?:diagnos[ei]s|disease|condition|categor(?:y|ies)|class(?:ification)?|type|kind|stage|grade|subtype|modality|
      plane|view|organ|pattern|pathology|disorder|severity|side|laterality|position|orientation|stain(?:ing)?|sex|gender|label|abnormality|projection|sequence|group|nature|status|quality|phase|species|variant|morphology|shape|colou?r|texture|margins?|echogenicity|anatomy|body\spart|region)\b
    | \b(?:categor(?:y|ies)|diagnosis|classification|stage|grade|subtype|modality)\b"""  # noqa: E501
)
_where = _pattern(
    r"""(?:^|[,:]\s|\band\s)where\b(?!\sas) | \bwhereabouts\b | \b(?:locate|locali[sz]e|locali[sz]ation|pinpoint|delineate|demarcate|outline|circumscribe|encircle|circle|highlight|annotate)\b
    | \b(?:location|position|site|extent|boundar(?:y|ies)|borders?|outlines?|contours?)\s(?:of|for)\b | ^(?:mark|find|detect|point|segment|show|box|draw|crop|frame|put|indicate|spot|track)\b | \bpoint\s(?:to|out)\b
    | \b(?:show|tell)\sme\swhere\b | \bdraw\b"""
)

# Within one request, in this order.
REQUESTS = (
    Rule("asks for a text", Task.REPORT, _write),
    Rule("lists labels", Task.MULTI_LABEL, _list_all),
    Rule("yes or no, this or that", Task.CLASSIFICATION, _polar),
    Rule("a group", Task.CLASSIFICATION, _group),
    Rule("how many of a unit", Task.REGRESSION, _units),
    Rule("how many", Task.COUNTING, _count),
    Rule("how much", Task.REGRESSION, _measure),
    Rule("which", Task.CLASSIFICATION, _pattern(r"\bwhich\b")),
    Rule("where", Task.DETECTION, _where),
    Rule("describes", Task.REPORT, _describe),
    Rule("names a class", Task.CLASSIFICATION, _which),
)
# Among requests: the more specific form of answer.
_SPECIFIC = (Task.COUNTING, Task.REGRESSION, Task.DETECTION, Task.MULTI_LABEL, Task.CLASSIFICATION, Task.REPORT)


def match_rules(question: str) -> Evidence | None:
    """The rule that decides a normalised question, None if none does or it is not about a medical picture."""
    text = asked(question)
    if asks_for_writing(text):
        return None
    for rule in FORMS:
        if rule.matches(text):
            return Evidence(rule.task, rule.name, strong=True)
    if task := foreign_cue(focus(question)):
        return Evidence(task, "a cue in another language", strong=False)
    if not is_medical_picture(text):
        return None
    found = [evidence for request in requests(text) if (evidence := _match_request(request))]
    asked_for_text = next((evidence for evidence in found if evidence.rule == "asks for a text"), None)
    return asked_for_text or min(found, key=lambda evidence: _SPECIFIC.index(evidence.task), default=None)


def _match_request(request: str) -> Evidence | None:
    rule = next((rule for rule in REQUESTS if rule.matches(request)), None)
    return Evidence(rule.task, rule.name, strong=False) if rule else None


@cache
def rules_fingerprint() -> str:
    """Changes when the text of the rules does."""
    from medvl.router import languages, request, scope, spelling

    sources = (inspect.getsource(module) for module in (sys.modules[__name__], languages, request, scope, spelling))
    return hashlib.sha256("".join(sources).encode()).hexdigest()[:12]
