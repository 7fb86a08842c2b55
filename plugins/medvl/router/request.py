"""What a prompt really asks: its requests, without roles, case histories and claims about its own task."""

import re
from functools import lru_cache

from medvl.router.patterns import any_of, pattern
from medvl.router.spelling import normalised

# "task: detection", "TaskType = counting", "<task>report generation</task>": a label, not a request.
_CLAIM = re.compile(
    r"""["'\[<(]{0,4}\b(?:task|tasktype|route|adapter|label|category|mode)[\s_-]*(?:type|name|id)?["'>\])]*\s*(?:[:=]|\bis\b)
        \s*["']?(?:(?:multi[\s_-]?label|image|object|lesion|instance|cell|binary|report)[\s_-]*)?
        (?:classification|detection|segmentation|counting|regression|generation|report(?:ing)?|general)\b
        ["'\])>,;.]*(?:</\w+>)?""",
    re.VERBOSE | re.IGNORECASE,
)
_ORDER_TO_ROUTER = pattern(
    any_of("ignore disregard forget override bypass") + r"\b.*\b"
    + any_of("instructions? above previous prior rules? router prompt"),
    any_of("route send classify treat handle process interpret label") + r"\b.*\b(?:as an?|to the|to|with the)\b.*\b"
    + any_of("task adapter expert head question problem request"),
    r"this is (?:an? |not an? )?[\w -]{0,30}\b(?:task|problem)", r"use the \w+ adapter",
)  # fmt: skip
# What is not asked: "do not count anything; describe the heart".
_REFUSED = re.compile(
    r"(?:^|(?<=[.;!?] ))(?:please |kindly )*(?:do not|don't|never|no need to|there is no need to)\b[^.;?!]*(?:[.;!]"
    r" ?|$)",
    re.IGNORECASE,
)
_QUESTION_MARKER = re.compile(r"\b(?:question|query|prompt|q) ?\d{0,3} ?: ?", re.IGNORECASE)
_ENDS = ".?!\u3002\uff1f\uff01"  # of English and Chinese sentences
_SENTENCE_END = re.compile(rf"(?<=[{_ENDS}])(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bvs\.)(?<!\b[A-Z]\.)\s+")
_OPTION_START = re.compile(r"(?<!\w)\(?[Aa1][:.)]\s")
_ROLE = pattern(
    "^you(?:'re| are| will be| have been| work as| can| may| know| have(?! to))",
    "^" + any_of("act_as imagine assume suppose pretend consider_yourself"),
    "^" + any_of(
        "hi hello hey dear good_(?:morning|afternoon|evening) thanks?(?:_you)? take_(?:a_deep_breath|your_time) think"
        " be_(?:careful|precise|concise|brief) carefully_(?:look|examine|inspect) look_(?:carefully|closely)"
    ) + r"\b[^?]*$",
)  # fmt: skip
# Told, not asked: the past of a case, or what earlier documents say.
_NARRATIVE = pattern(
    any_of(
        r"was were had has_been have_been underwent presented presents presenting complain\w* denie[sd] admitted"
        r" referred history"
        r" year[-_]old previous(?:ly)? prior earlier last_(?:week|month|year) follow(?:ing|ed)?_(?:up|surgery) ago"
        r" already background"
        r" according_to reported described counted measured showed revealed demonstrated documented noted mentioned"
        r" radiologists?"
        r" colleagues?"
    )
)
_ASKS = pattern(
    "^(?:(?:so|now|then|next|and|also|finally|please|kindly|just)[, ]+)*"
    + any_of(
        "what which where how who when is are does do did has have can could would will should count tally list give"
        " tell provide"
        " return report describe summari[sz]e write generate select choose pick tick mark check classify identify"
        " name estimate"
        " measure calculate compute determine quantify locate locali[sz]e find detect draw put outline assess"
        " evaluate decide state"
        " indicate answer output produce create dictate compose enumerate label predict show specify"
    )
)
_POLITE = re.compile(
    r"^(?:(?:so|now|then|next|and|also|finally|ok(?:ay)?|well|hi|hello|hey|thanks|doctor|dear colleague)[, !.]+)*"
    r"(?:(?:please|kindly|just)[, ]+)*"
    r"(?:(?:can|could|would|will) (?:you|we|someone)(?: (?:please|kindly|help(?: me)?(?: to)?|be able to))?[,"
    r" ]+(?=[a-z])"
    r"(?!(?:say|call|consider|think|agree|suspect|rate)\b)"
    r"|(?:i(?:'d| would| will)? (?:need|want|like|ask|require)(?: for)?(?: you)?(?: to)?|help me(?: to)?|let us|let's"
    r"|your (?:task|job|goal|role|mission) is(?: to)?|you (?:must|should|need to|have to)|try to|go ahead and"
    r"|are you able to|is it possible to|would you mind) +)?(?:(?:please|kindly|just)[, ]+)*",
    re.IGNORECASE,
)
# A condition or a second question joined to the first: each is a request of its own.
_JOINT = re.compile(
    r",? (?:and )?(?:if (?:so|yes|present|any|positive)"
    r"|(?:and|then)(?= (?:how many|where|what|which|give|tell|return|provide|count|mark|draw)\b))[,:]? ",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def focus(question: str) -> str:
    """The part of a normalised question that asks for something; all of it where nothing else would be left.

    Dropped are claims about the task ("task: detection"), orders to a router, roles ("You are a radiologist"),
    greetings, told case histories, and what stands before the last "Question:".
    """
    text = _CLAIM.sub(" ", question)
    text = _REFUSED.sub("", text).strip() or text
    *_, last = _QUESTION_MARKER.split(text)
    text = last if len(last.split()) > 2 else text
    sentences = [part for part in _SENTENCE_END.split(text.strip()) if part]
    sentences = [part for part in sentences if not _ORDER_TO_ROUTER.search(part) or _OPTION_START.search(part)]
    asking = [part for part in sentences if not _is_told(part)]
    return " ".join(" ".join(asking or sentences).split()) or question


def _is_told(sentence: str) -> bool:
    if sentence.endswith(("?", "\uff1f")) or _OPTION_START.search(sentence):
        return False
    return bool(_ROLE.search(sentence) or (_NARRATIVE.search(sentence) and not _ASKS.search(_POLITE.sub("", sentence))))


def requests(text: str) -> list[str]:
    """The single requests of a focused text, without politeness: "Could you please count the cells?" is "count …"."""
    parts = [part for sentence in _SENTENCE_END.split(text) for part in _JOINT.split(sentence)]
    return [stripped for part in parts if (stripped := _POLITE.sub("", part.strip()))]


@lru_cache(maxsize=4096)
def asked(question: str) -> str:
    """What rules and classifier read of a normalised question: its focus, typos mended."""
    return normalised(focus(question))
