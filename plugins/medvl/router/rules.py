"""Rules on the form of the answer that a question asks for. They know no topic, so they hold on unseen datasets.

First what states the form (`medvl.router.forms`), wherever it stands. Then the wording of each single request; that
says less, so it counts only in a question about a medical image, and of several requests the one with the more
specific form of answer decides.
"""

import hashlib
import inspect
import sys
from dataclasses import dataclass
from functools import cache

from medvl.router import forms, languages, patterns, request, scope, spelling
from medvl.router.forms import FORMS, LABEL
from medvl.router.languages import foreign_pattern
from medvl.router.patterns import Rule, any_of, pattern_of
from medvl.router.request import asked, focus, requests
from medvl.router.scope import asks_for_writing, is_medical_image
from medvl.tasks import Task


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


_GIVE = any_of(
    "give provide state report return supply output tell_me list name identify indicate mention note assign label"
    " enumerate"
)
_PLURAL = r"(?!\w*(?:sis|ss|us|itis)\b)\w+(?:s|i|ae)"

_asks_for_text = pattern_of(
    any_of("write generate compose dictate draft produce create prepare provide give issue supply deliver formulate"
           " make output return need want")
    + r"\b[^.?!]{0,60}?\b(?:report(?! (?:of |on )?the (?:number|count|total|quantity|percentage))|"
    + any_of("findings impressions? narrative description summary interpretation captions? write-?up commentary")
    + "|overview)",
    r"in (?:\w+ )?detail", "write up", "type up", "(?:full|complete) sentences?", "free[ -]text", "in prose",
    any_of("one two three a_few several") + " (?:short )?(?:sentences?|paragraphs?)",
)  # fmt: skip
_lists_labels = pattern_of(
    rf"{_GIVE}\b[^.?!]*\b(?:all|every|each|any|multiple)\b[^.?!]*\b{LABEL}",
    r"(?:which|what) (?:are )?(?:all )?(?:the )?(?:\w+ )?"
    + any_of("abnormalities diseases conditions pathologies diagnoses labels disorders lesion_types cell_types"),
)

# "Is there …?", "In this scan, is there …?", but neither "Do a count" nor "What share, if any, is …?"
_auxiliary = any_of("is are was were does do did has have can could should would will isn't aren't doesn't")
_yes_or_no = pattern_of(
    rf"(?:^(?!do an?\b)|^(?![^?]*\b(?:how|what|which|where)\b)[^?]*[,:] (?:and |but |then )?)"
    rf"{_auxiliary} (?!you\b|we\b)[^?]*\??$",
    r"(?:^|[,:] )(?:would|do|did|can|could) (?:you|we) " + any_of(
        "say call consider think see detect spot find make_out observe agree suspect rate notice classify"
        " categori[sz]e recogni[sz]e"
    ),
    any_of("^say ^call ^consider ^see ^spot ^detect ^find ^identify ^make_out ^observe ^notice")
    + r" (?:any|an?|signs?|evidence)\b[^?]*\?$",
    "whether", "if there is",
    any_of("determine decide assess tell tell_me check judge evaluate see state say indicate") + " if",
    r"\w+ or (?:[\w-]+ ?){1,5}\?$",
    # "Smear positive for malaria?"
    # but not "The number of cells visible?"
    r"^(?!.*\b(?:what|which|how|where|numbers?|counts?|total|percentage|proportion|fraction)\b)[^?]{1,60}\b" + any_of(
        "positive negative present absent visible seen intact normal abnormal enlarged malignant benign"
    ) + r"\b[^?]*\?$",
    r"\((?:\d{1,2}[,/] ?){1,9}(?:or )?\d{1,2}\)",
    "(?:presence|absence) (?:or absence )?of", r"(?:positive|negative|normal|benign|adequate) or \w+",
    # A list to choose from at the end: "Assess the image quality: good, usable, reject."
    r"^(?!describe|comment|report|summari[sz]e)[^:?]*[:?] (?:[\w' -]{2,30}[,;/] ){1,12}(?:or )?[\w' -]{2,30}[.?]?$",
)  # fmt: skip
_group = pattern_of(
    "(?:age|weight|size|risk|severity) " + any_of(r"groups? ranges? categor\w+ brackets? class(?:es)? bands?")
)

_UNIT = any_of(
    r"weeks? months? years? days? hours? minutes? mm millimet\w+ cm centimet\w+ m?l millilit\w+ cc microns?"
    r" micromet\w+ [µu]m degrees?"
    r" percent\w* pct % bpm mmhg grams? kg hounsfield hu"
)
_of_a_unit = pattern_of(rf"how many (?:\w+ )?{_UNIT}", rf"number of (?:\w+ )?{_UNIT}")
_how_many = pattern_of(
    "how many", "numbers? of", "counts?(?! on)", "counting", "tall(?:y|ies)", "quantit(?:y|ies)", "head ?count",
    "enumerat(?:e|ion)", "how numerous", "add up", "census", "population (?:of|in|count)", "^number", "^count", "^sum",
    r"(?:cell|nucle\w+|lesion|parasite|colony) number",
    "total (?:of|number|sum)", r"(?:the |^)total (?!area|volume|length|size|percentage)\w+s?",
    rf"amount of (?:the |all )?{_PLURAL}",
    rf"quantify (?:the |all |visible |individual |every )*(?:[\w-]+ ){{0,2}}?{_PLURAL}(?! (?:of|percentage|rate))",
)  # fmt: skip
# Ratios and lengths are numbers wherever they are named; a size, a rate or an age only where it is asked for.
_RATIO = any_of(
    r"percent(?:age)?s? proportions? fractions? ratios? angles? diameters? radius lengths? widths? thickness(?:es)?"
    r" depths? volumes?"
    r" perimeters? circumferences? distances? index indices velocit(?:y|ies) pressures? percentiles?"
    r" probabilit(?:y|ies)"
    r" measurements? abr suv\w* lvef bmd ffr"
)
_SIZE = any_of(
    r"sizes? areas? heights? rates? ages? extents? degrees? amounts? levels? values? scores? densit(?:y|ies)"
    r" dimensions? weights?"
    r" coverage burden intensit(?:y|ies) severity"
)
_MODIFIERS = rf"(?:(?!{any_of('of for in on to is are and or from with by that number count')}\b)[\w%()'/-]+ ){{0,4}}?"
_how_much = pattern_of(
    _RATIO, r"[^%]*%", "how " + any_of("old large big long wide thick deep tall far high much small heavy fast"),
    rf"(?:in|as|to the nearest) (?:an? )?{_UNIT}", rf"\({_UNIT}\)",
    any_of("estimate measure calculate compute quantify determine predict report provide give assess evaluate state"
           " derive gauge supply what's what_is what_are tell_me")
    + rf" (?:the |an? |its |this |their |your )?{_MODIFIERS}{_SIZE}\b"
    r"(?! (?:group|range|categor|bracket|class|grade|stage))",
    "^(?:the )?rates? of", "(?:numeric(?:al)?|decimal) (?:estimate|value|answer)", "estimates? of",
    r"estimat(?:e|ion)\??$", "approximate",
    r"^(?:estimate|measure|calculate|compute|quantify|predict)\b"
    r"(?![^.?]*\b(?:diagnosis|class|category|stage|grade|group|outcome|whether)\b)",
)  # fmt: skip

_where = pattern_of(
    "(?:^|[,:] |and )where(?! as)", "whereabouts", "point (?:to|out)", "(?:show|tell) me where", "draw",
    any_of("locate locali[sz]e locali[sz]ation pinpoint delineate demarcate outline circumscribe encircle circle"
           " highlight annotate"),
    any_of("location position site extent boundar(?:y|ies) borders? outlines? contours?") + " (?:of|for)",
    "^" + any_of("mark find detect point segment show box draw crop frame put indicate spot track"),
)  # fmt: skip
_describes = pattern_of(
    "descri(?:be|bed|bing|ption)", "summari[sz]e", r"dictat\w+", r"narrat\w+", "comment(?:s|ary)?",
    "interpret(?:ation)?",
    "explain", "discuss", "elaborate", "findings?", "impressions?", "reports?", "caption", "appearances?", "overview",
    "observations?",
    "what (?:do|can|could|would) you (?:see|observe|notice|make of|report)",
    "what " + any_of("you_see is_seen is_shown can_be_seen is_visible stands_out"),
    r"what (?:does|do)\b[^?]*\b(?:show|reveal|demonstrate|depict|display|look like)",
    r"how (?:does|do)\b[^?]*\b(?:look|appear)",
    "tell me about", "walk me through", "read this",
)  # fmt: skip
_CLASS = any_of(
    r"diagnos[ei]s disease condition categor(?:y|ies) class(?:ification)? type kind stage grade subtype modality"
    r" plane view organ pattern"
    r" pathology disorder severity side laterality position orientation stain(?:ing)? sex gender label abnormality"
    r" projection sequence"
    r" group nature status quality phase species variant morphology shape colou?r texture margins? echogenicity"
    r" anatomy body_part region"
)
_names_a_class = pattern_of(
    any_of("classify categori[sz]e grade stage diagnose identify recogni[sz]e name differentiate distinguish triage"),
    any_of(
        "what state give provide determine assign judge assess rate evaluate tell_me establish select"
        " most_(?:likely|probable|appropriate)"
    )
    + rf"\b[^.?!]*\b{_CLASS}",
    any_of("categor(?:y|ies) diagnosis classification stage grade subtype modality"),
)

# Within one request, in this order.
REQUESTS = (
    Rule("asks for a text", Task.REPORT, _asks_for_text),
    Rule("lists labels", Task.MULTI_LABEL, _lists_labels),
    Rule("yes or no, this or that", Task.CLASSIFICATION, _yes_or_no),
    Rule("a group", Task.CLASSIFICATION, _group),
    Rule("how many of a unit", Task.REGRESSION, _of_a_unit),
    Rule("how many", Task.COUNTING, _how_many),
    Rule("how much", Task.REGRESSION, _how_much),
    Rule("which", Task.CLASSIFICATION, pattern_of("which")),
    Rule("where", Task.DETECTION, _where),
    Rule("describes", Task.REPORT, _describes),
    Rule("names a class", Task.CLASSIFICATION, _names_a_class),
)
# Among requests: the more specific form of answer.
_SPECIFIC = (Task.COUNTING, Task.REGRESSION, Task.DETECTION, Task.MULTI_LABEL, Task.CLASSIFICATION, Task.REPORT)


def match_rules(question: str) -> Evidence | None:
    """The rule that decides a normalised question, None if none does or it is not about a medical image."""
    text = asked(question)
    if asks_for_writing(text):
        return None
    foreign = foreign_pattern(focus(question))
    for rule in FORMS:
        # Options are seen in any language, and that several may be chosen is said in the question's own.
        if rule.matches(text) and not (rule.task == Task.CLASSIFICATION and foreign == Task.MULTI_LABEL):
            return Evidence(rule.task, rule.name, strong=True)
    if foreign:
        return Evidence(foreign, "a cue in another language", strong=False)
    if not is_medical_image(text):
        return None
    found = [evidence for single in requests(text) if (evidence := _match_request(single))]
    text_wanted = next((evidence for evidence in found if evidence.rule == REQUESTS[0].name), None)
    return text_wanted or min(found, key=lambda evidence: _SPECIFIC.index(evidence.task), default=None)


def _match_request(text: str) -> Evidence | None:
    rule = next((rule for rule in REQUESTS if rule.matches(text)), None)
    return Evidence(rule.task, rule.name, strong=False) if rule else None


@cache
def rules_fingerprint() -> str:
    """Changes when the text of the rules does."""
    modules = (sys.modules[__name__], patterns, forms, languages, request, scope, spelling)
    return hashlib.sha256("".join(map(inspect.getsource, modules)).encode()).hexdigest()[:12]
