"""The rules `m3llm-v1`, by `--compat v1`: PMC-MI-Bench as M3LLM's first release scores it, inflation included.

Source: `benchmark/PMC_Data_Benchmark` of franciszchen/M3LLM. They are here to compare with the numbers published for
M3LLM-8B, and for nothing else; every output says so. Each quirk is that program's, marked `quirk`:

- precision, recall and F1 leave out every answer that is no bare capital letter, so that a model which fails to answer
  is scored on what it could answer. They are called `…_of_letters` here; `letters` is the share that they are made of;
- an answer that is no letter counts as the option whose text is most like it (`difflib`), however unlike that is. So
  prose is right by chance, and the accuracy has no invalid answers.

EM, and precision, recall and F1 of the sets of words, were dropped by the second release. CIDEr is left out.
"""

import difflib
import re
from collections.abc import Sequence

import numpy as np

from evaluation.findings import Finding
from evaluation.metrics.m3llm import LETTERS, declare_means, letter_columns, macro, said, sentences
from evaluation.metrics.registry import Floats, Sums, Table, caution, metric, ratio, table
from evaluation.samples import Sample
from medvl.tasks import Task

RULES = "m3llm-v1"
# What stands before an answer, looked for one after the other.
_LEADS = ("**answer**:", "**answer**", "*answer*:", "**answer:**", "answer is", "answer:", "答案:", "final answer",
          "final answer is")  # fmt: skip
_LINE = re.compile(r"\s*([a-f])\s*[.):-]\s*(.*)", re.IGNORECASE)


@caution(RULES)
def inflated(samples: Sequence[Sample]) -> list[Finding]:
    """What must be said beside these numbers."""
    choices = [sample for sample in samples if sample.reference.task is Task.CLASSIFICATION]
    if not choices:
        return []
    others = sum(not _is_letter(said(sample)) for sample in choices)
    text = (
        f"choices, {others} of them answered by no bare letter: `{RULES}` leaves these out of precision, recall and F1"
    )
    return [Finding("inflated_rules", len(choices), f"{text}, and guesses one for the accuracy; `m3llm` does neither")]


@table(Task.REPORT, rules=RULES)
def reports(samples: Sequence[Sample]) -> Table:
    """The columns of `m3llm`, and `em`, `word_precision`, `word_recall`, `word_f1`."""
    made = sentences(samples)
    words = np.array([_words(said(sample), sample.reference.answer) for sample in samples]).reshape(-1, 4)
    names = ("em", "word_precision", "word_recall", "word_f1")
    more = {name: words[:, place] for place, name in enumerate(names)}
    return Table(made.invalid, made.score, {**made.columns, **more})


def _words(text: str, truth: str) -> tuple[float, float, float, float]:
    """Whether both are the same, and precision, recall and F1 of their sets of words (quirk: with punctuation)."""
    same = float(text.strip().lower() == truth.strip().lower())
    sides = set(text.lower().split()), set(truth.lower().split())
    if not all(sides):
        return same, 0.0, 0.0, 0.0
    common = len(sides[0] & sides[1])
    precision, recall = (common / len(side) for side in sides)
    return same, precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0


declare_means(RULES)
for _name in ("em", "word_precision", "word_recall", "word_f1"):

    @metric(Task.REPORT, name=_name, rules=RULES)
    def _mean(sums: Sums, *, column: str = _name) -> Floats:
        return ratio(sums[column], sums["n"])


@table(Task.CLASSIFICATION, rules=RULES)
def choices(samples: Sequence[Sample]) -> Table:
    """Columns: `right` by letter or likeness, `n`, `letters`, and `m3llm`'s per letter, of bare letters alone."""
    right = [float(judged(sample.reference.question, sample.reference.answer, said(sample))) for sample in samples]
    kept = [_is_letter(said(sample)) for sample in samples]
    truth = [sample.reference.answer.strip() if keep else "" for sample, keep in zip(samples, kept, strict=True)]
    columns = {"right": np.array(right), "n": np.ones(len(samples)), "letters": np.array(kept, dtype=float)}
    picked = [said(sample).strip() if keep else None for sample, keep in zip(samples, kept, strict=True)]
    nothing_invalid = np.zeros(len(samples), dtype=bool)  # quirk
    return Table(nothing_invalid, np.array(right), columns | letter_columns(picked, truth))


def _is_letter(text: str) -> bool:
    return len(text.strip()) == 1 and text.strip() in LETTERS


def judged(question: str, answer: str, response: str) -> bool:
    """Whether a response counts as a right choice."""
    offered = offered_texts(question)
    if not offered:
        return False
    letters = "abcdef"[: len(offered)]
    truth, text = answer.strip().lower(), _stated(response.lower(), letters)
    short = text.split(".")[0].split(":")[-1]
    if short == truth:
        return True
    if short in letters and short:  # quirk: another letter than the right one; the options' texts are no letters
        return offered[letters.index(short)] == truth
    if short in offered:
        return truth in letters and offered[letters.index(truth)] == short
    # quirk: whatever it says, it is one of the options
    likeness = [difflib.SequenceMatcher(None, option, text).ratio() for option in offered]
    most = likeness.index(max(likeness))
    return truth in (letters[most], offered[most])


def offered_texts(question: str) -> list[str]:
    """Texts of the options, in lower case.

    quirk: they are looked for at the start of lines. In "… are: A. one\\nB. two" the first is not, so that B's text has
    the place of A.
    """
    found: list[str] = []
    for line in re.split(r"\n+", question):
        if match := _LINE.match(line):
            found.append(match[2])
        elif found:
            found[-1] = f"{found[-1]} {line.strip()}".strip()
    found = [re.sub(r"^[A-F]\s*[.):-]\s*", "", text.strip(), flags=re.IGNORECASE) for text in found]
    if texts := [text.strip().lower() for text in found if text]:
        return texts
    parts = re.split(r"(?<![A-Za-z])[A-F]\s*[.):-]\s*", question)
    return [part.strip().lower() for part in parts[1:]]


def _stated(response: str, letters: str) -> str:
    """What a response presents as its answer."""
    first, last = response.split("\n\n")[0], response.split("\n\n")[-1].split(".")[0]
    response = next((part for part in (first, last) if len(part) == 1 and part in letters), response)
    if "boxed" in response or "<answer>" in response:
        tagged = re.search(r"<answer>(.*?)</answer>", response, re.DOTALL)
        named = tagged or re.search(r"answer\s*[:\uff1a]\s*(.*)", response)
        response = named[1] if named else response
    for lead in _LEADS:
        response = response.split(lead)[-1]
    return response.strip().replace("\n", "")


@metric(Task.CLASSIFICATION, name="accuracy_by_likeness", headline=True, rules=RULES)
def accuracy_by_likeness(sums: Sums) -> Floats:
    """Share of answers that are the right letter, or more like the right option than like the others."""
    return ratio(sums["right"], sums["n"])


@metric(Task.CLASSIFICATION, name="letters", rules=RULES)
def letters(sums: Sums) -> Floats:
    """Share of answers that are a bare capital letter: all that precision, recall and F1 are made of."""
    return ratio(sums["letters"], sums["n"])


@metric(Task.CLASSIFICATION, name="accuracy_of_letters", rules=RULES, undefined="no answer is a bare letter")
def accuracy_of_letters(sums: Sums) -> Floats:
    """quirk: the share of right ones among the answers that are a letter."""
    return ratio(sums["hits"].sum(axis=1), sums["letters"])


@metric(Task.CLASSIFICATION, name="precision_of_letters", rules=RULES, undefined="no answer is a bare letter")
def precision_of_letters(sums: Sums) -> Floats:
    """quirk: macro precision over the answers that are a letter."""
    return macro(sums, sums["hits"], sums["predictions"])


@metric(Task.CLASSIFICATION, name="recall_of_letters", rules=RULES, undefined="no answer is a bare letter")
def recall_of_letters(sums: Sums) -> Floats:
    """quirk: macro recall over the answers that are a letter."""
    return macro(sums, sums["hits"], sums["references"])


@metric(Task.CLASSIFICATION, name="f1_of_letters", headline=True, rules=RULES, undefined="no answer is a bare letter")
def f1_of_letters(sums: Sums) -> Floats:
    """quirk: macro F1 over the answers that are a letter."""
    return macro(sums, 2 * sums["hits"], sums["references"] + sums["predictions"])
