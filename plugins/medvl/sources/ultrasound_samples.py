"""What is asked about a fetal ultrasound image, and the samples that an annotated row becomes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from medvl.sources.base import Problem, Sample, SourceFile
from medvl.sources.ultrasound_labels import QUESTIONS, Normality, Question, facts, normalise_answer, normality
from medvl.sources.ultrasound_rows import Annotation
from medvl.tasks import Task, canonical_task

REPORT = "report"  # dataset of combined reports


@dataclass(frozen=True)
class Asked:
    """One thing that is asked about every image.

    Attributes:
        dataset: Its dataset: `q1` to `q8`, `q7_simple`, `report`.
        question: The question.
        of: The annotated questions that its answer is made of.
        label: Whether Q7 is answered by its label, not by the phrase.
        upper: Whether that label is written in capitals, as the question asks.
    """

    dataset: str
    question: str
    of: tuple[Question, ...]
    label: bool = False
    upper: bool = False


def asked_for(ask: str, prompts: Sequence[str], *, label: bool) -> Iterator[Asked]:
    """What one choice of --ask asks about every image.

    Args:
        ask: A question, `all` or `report`.
        prompts: Ways to ask q7; of several each has a dataset.
        label: Whether Q7 is answered by its label.
    """
    questions = facts()["questions"]
    if ask == REPORT:
        sections = "\n".join(f"## {questions[question]['section']}" for question in QUESTIONS)
        yield Asked(REPORT, f"{facts()['report']}\n{sections}", QUESTIONS, label)
    elif ask == "q7":
        for prompt in prompts or ["detailed"]:
            dataset = f"q7_{prompt}" if len(prompts) > 1 else "q7"
            yield Asked(dataset, facts()["prompts"][prompt], ("q7",), label, upper=prompt == "structured")
    else:
        for question in QUESTIONS:
            if ask in ("all", question):
                asked = questions[question]
                yield Asked(question, f"{asked['heading']}: {asked['instruction']}", (question,), label)


@dataclass(frozen=True)
class Labelling:
    """How Q7 is read: the label of a normal finding with a guarded prognosis."""

    guarded: Normality = "normal"

    def targets(self, row: Annotation, asked: Asked) -> tuple[dict[Question, str], list[tuple[str, str]]]:
        """What is trained on for every question that is part of the answer, and what is to be said about it."""
        texts: dict[Question, str] = {}
        notes = []
        for question in asked.of:
            before = row.answers[question]
            text, rules = normalise_answer(question, before)
            if rules:
                notes.append(("ANSWER_NORMALISED", f"{question}: {before!r} is {text!r} ({'+'.join(rules)})"))
            if question == "q7" and text:
                said = normality(text, self.guarded)
                if said == "unclear":
                    notes.append(("NORMALITY_UNCLEAR", f"{before!r} says neither normal nor abnormal"))
                if asked.label:
                    text = said.upper() if asked.upper else said
            texts[question] = text
        return texts, notes


def make_sample(
    file: SourceFile,
    row: Annotation,
    asked: Asked,
    labelling: Labelling,
    *,
    index: int,
    group: str | None,
    notes: Sequence[tuple[str, str]],
    problems: Sequence[Problem],
) -> Sample:
    """One row, asked one thing. A row without any answer to it has none; a report says which of its parts are blank."""
    texts, said = labelling.targets(row, asked)
    blank = [question for question in asked.of if not texts[question]]
    if asked.dataset == REPORT:
        task, answer, target = Task.REPORT, report_text(row.answers), report_text(texts)
        said += [("ANSWER_BLANK", f"{question} is blank") for question in blank]
    else:
        task = canonical_task(facts()["questions"][asked.of[0]]["task"])
        answer, target = row.answers[asked.of[0]], texts[asked.of[0]]
    answered = len(blank) < len(asked.of)
    name = f"{row.folder}/{row.image}" if row.folder else row.image
    return Sample(
        file=file,
        index=index,
        line=row.line,
        row=row.as_row(),
        task=task,
        question=asked.question,
        images=(name,) if row.image else (),
        answer=answer if answered else "",
        target=target if answered else None,
        group=group,
        notes=(*notes, *said),
        problems=tuple(problems),
    )


def report_text(answers: Mapping[Question, str]) -> str:
    """Eight sections, each under its heading; one without an answer says so."""
    parts = facts()["questions"]
    return "\n\n".join(
        f"## {parts[question]['section']}\n{answers[question].strip() or facts()['blank']}" for question in QUESTIONS
    )
