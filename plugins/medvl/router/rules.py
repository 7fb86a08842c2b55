"""Rules on the form of the answer that a question asks for. They know no topic, so they hold on unseen datasets.

First what states the form (`medvl.router.forms`), wherever it stands. Then the wording of each single request; that
says less, so it counts only in a question about a medical image, and of several requests the one with the more
specific form of answer decides. Words and regular expressions are in the YAML files beside this module.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from medvl.router.forms import FORMS
from medvl.router.languages import foreign_task
from medvl.router.patterns import FOLDER, Rule, read_rules
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


REQUESTS = read_rules(FOLDER / "rules.yaml")  # within one request, in this order
# Of several requests, the task with the more specific form of answer decides.
_SPECIFIC = (Task.COUNTING, Task.REGRESSION, Task.DETECTION, Task.MULTI_LABEL, Task.CLASSIFICATION, Task.REPORT)
if unranked := {rule.task for rule in REQUESTS} - set(_SPECIFIC):
    raise ValueError(f"{FOLDER / 'rules.yaml'}: rules: rules.py does not say how specific {', '.join(unranked)} is")
_FILES = ("forms", "languages", "patterns", "request", "rules", "scope", "spelling", "topics")


def match_rules(question: str) -> Evidence | None:
    """The rule that decides a normalised question, None if none does or it is not about a medical image."""
    text = asked(question)
    return _decides(question, _matching(FORMS, text), (_matching(REQUESTS, single) for single in requests(text)))


def all_rules(question: str) -> tuple[list[str], Evidence | None]:
    """The names of all rules that a normalised question shows, each once, and what `match_rules` says of it."""
    text = asked(question)
    forms = list(_matching(FORMS, text))
    singles = [list(_matching(REQUESTS, single)) for single in requests(text)]
    shown = dict.fromkeys(rule.name for rules in (forms, *singles) for rule in rules)
    return list(shown), _decides(question, forms, singles)


def _matching(rules: Sequence[Rule], text: str) -> Iterator[Rule]:
    return (rule for rule in rules if rule.matches(text))


def _decides(question: str, forms: Iterable[Rule], singles: Iterable[Iterable[Rule]]) -> Evidence | None:
    """The deciding one of the rules that the text and its single requests show, which are looked for as needed."""
    text = asked(question)
    if asks_for_writing(text):
        return None
    foreign = foreign_task(focus(question))
    for rule in forms:
        # Options are seen in any language, and that several may be chosen is said in the question's own.
        if not (rule.task == Task.CLASSIFICATION and foreign == Task.MULTI_LABEL):
            return Evidence(rule.task, rule.name, strong=True)
    if foreign:
        return Evidence(foreign, "a cue in another language", strong=False)
    if not is_medical_image(text):
        return None
    found = [first for single in singles if (first := next(iter(single), None))]
    decides = min(found, key=_rank, default=None)
    return Evidence(decides.task, decides.name, strong=False) if decides else None


def _rank(rule: Rule) -> int:
    """The less, the sooner it decides: a text that is asked for, then the more specific form of answer."""
    return -1 if rule is REQUESTS[0] else _SPECIFIC.index(rule.task)


@cache
def rules_fingerprint() -> str:
    """Changes when the text of the rules does."""
    files = sorted(path for path in FOLDER.iterdir() if path.stem in _FILES and path.suffix in (".py", ".yaml"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
