"""Rows of M3LLM's training files and of PMC-MI-Bench as samples. Which images are shown, and what they are called."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medvl.choices import options
from medvl.sharegpt import IMAGE_TAG
from medvl.sources.base import Problem, Row, Sample
from medvl.sources.pmc_files import Note
from medvl.sources.pmc_sets import PmcSet
from medvl.tasks import TASKS, Task
from medvl.tasks.base import Context

# What stands before the question: tags, each with the name of its image or not.
_TAG = re.compile(rf"\s*(?:([\w-]+)\s*:\s*)?{IMAGE_TAG}")
_HEAD = re.compile(rf"(?:{_TAG.pattern})+")
_FIGURE = re.compile(r"\bFig-\d+")
_ARTICLE = re.compile(r"(?:^|[\\/])(PMC\d+)")
_LETTER = re.compile(r"[A-Z]")
_CHOICE = re.compile(r"[A-Z](?:\s?[.:)].*)?", re.DOTALL)
_SPEAKERS = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}


def made(part: PmcSet, index: int, row: Row, *, question: str, answer: Any, images: Sequence[str],
         titles: Sequence[str] = (), line: int | None = None, group: Iterable[str] = (), target: str | None = None,
         notes: Iterable[Note] = (), problems: Iterable[Problem] = ()) -> Sample:  # fmt: skip
    """A sample; its task, the label of a choice, and whether its figures are shown are found here.

    Sentences are a `report_generation`: a `vqa` answer is a phrase, whose parser reads the conclusion of a longer one.

    Args:
        part: The set.
        index: Place among the set's samples.
        row: The row.
        question: The question without tags.
        answer: The answer as the JSON value that it is.
        images: Names of images.
        titles: What they are called.
        line: Place of the row, where several samples are made of one.
        group: Names that tell the article: of an image, or an id. Its questions stay in one split.
        target: What is trained on instead of the answer.
        notes: What is known already.
        problems: The same.
    """
    text = answer if isinstance(answer, str) else ""
    found, missing = list(notes), list(problems)
    if not question.strip():
        missing.append(Problem("question", "QUESTION_EMPTY", "there is no question"))
    if answer is not None and not isinstance(answer, str):
        missing.append(Problem("answer", "ANSWER_UNUSABLE", f"the answer is {str(answer)[:80]!r}, not text"))
    choice = part.kind == "choice" or bool(_CHOICE.fullmatch(text.strip()) and options(question))
    if choice and target is None:
        target = _letter(text, question)
        if target is not None:
            found.append(("ANSWER_REWRITTEN", f"{text[:200]!r} is trained on as {target!r}"))
    if odd := figures_not_shown(f"{question}\n{text}", titles):
        shown = ", ".join(titles) or "no image by name"
        found.append(("FIGURE_NUMBER", f"question or answer name {', '.join(odd)}; the prompt shows {shown}"))
    if len(set(titles)) < len(titles):
        found.append(("FIGURE_NUMBER", f"two images have one name: {', '.join(titles)}"))
    articles = (match[1] for name in (*images, *group) if (match := _ARTICLE.search(name)))
    return Sample(
        file=part.file,
        index=index,
        row=row,
        task=Task.CLASSIFICATION if choice else Task.REPORT,
        question=question.strip(),
        images=tuple(images),
        titles=tuple(titles),
        answer=text if text.strip() else "",
        target=target,
        written=answer,
        line=line,
        group=next(articles, None),
        notes=tuple(found),
        problems=tuple(missing),
    )


def _letter(text: str, question: str) -> str | None:
    """The letter of an answer that says more than it ("B. Smooth borders"); None if it is one, or picks none."""
    picked = TASKS[Task.CLASSIFICATION].read(text, Context(question)).value
    return picked if isinstance(picked, str) and _LETTER.fullmatch(picked) and picked != text.strip() else None


def figures_not_shown(text: str, titles: Sequence[str]) -> list[str]:
    """The figures that a text names and no image is called.

    >>> figures_not_shown("Compare Fig-1 and (Fig-3).", ["Fig-0", "Fig-1"])
    ['Fig-3']
    """
    return [name for name in dict.fromkeys(_FIGURE.findall(text)) if name not in titles]


def training_sample(part: PmcSet, index: int, row: Row) -> Sample:
    """A row of a training file: `image` is a name, a list of names, [], or not there."""
    names, problems = image_names(row.get("image", row.get("images")))
    prompt, answer, problem = _turns(row.get("conversations", row.get("messages")))
    titles, question, notes = _untagged(prompt)
    tags = prompt.count(IMAGE_TAG)
    if problem:
        problems.append(problem)
    elif tags not in (0, len(names)) and not problems:
        detail = f"{tags} {IMAGE_TAG} in the prompt, but {len(names)} images"
        problems.append(Problem("images", "TAG_COUNT", detail))
    elif not tags and names:  # as InternVL's trainer does for one
        notes = [("TAGS_MOVED", f"no {IMAGE_TAG} in the prompt; the {len(names)} images are shown before it")]
    if len(titles) != len(names):
        titles = ()
    return made(part, index, row, question=question, answer=answer, images=names, titles=titles,
                group=[str(row.get("id", ""))], notes=notes, problems=problems)  # fmt: skip


def benchmark_sample(part: PmcSet, index: int, row: Row) -> Sample:
    """A row of PMC-MI-Bench. What stands under `images_puretext` is not shown."""
    names, problems = image_names(row.get("images"))
    unseen, _ = image_names(row.get("images_puretext"))
    titles = [str(title) for title in row.get("image_indices") or ()] if names else []
    if len(titles) != len(names) and not problems:
        detail = f"{len(names)} images, but image_indices is {', '.join(titles) or 'empty'}"
        problems.append(Problem("images", "TAG_COUNT", detail))
        titles = []
    question = row.get("question")
    return made(part, index, row, question=question if isinstance(question, str) else "", answer=row.get("gt"),
                images=names, titles=titles, group=unseen, problems=problems)  # fmt: skip


def image_names(value: Any) -> tuple[list[str], list[Problem]]:
    """Names of images, which may be one text, a list, or nothing at all; a problem where they are something else."""
    names = [value] if isinstance(value, str) else value
    if value is None or names in ([], [""]):
        return [], []
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        return [], [Problem("images", "IMAGE_NAME", f"image is {value!r}; expected a file name or a list of them")]
    return names, []


def _turns(conversation: Any) -> tuple[str, Any, Problem | None]:
    """The prompt and the answer of a conversation; a problem where it is not one of each."""
    turns = conversation if isinstance(conversation, list) else []
    turns = [turn if isinstance(turn, Mapping) else {} for turn in turns]
    said = [turn.get("from", turn.get("role")) for turn in turns]
    values = [turn.get("value", turn.get("content")) for turn in turns]
    if [_SPEAKERS.get(str(name)) for name in said] != ["human", "gpt"]:
        detail = f"expected a human turn and a gpt turn, found {str(said)[:200]}; make a record of each pair"
        return "", None, Problem("question", "TURNS", detail)
    if not isinstance(values[0], str):
        return "", None, Problem("question", "TURNS", f"the human turn is {str(values[0])[:80]!r}, not text")
    return values[0], values[1], None


def _untagged(prompt: str) -> tuple[tuple[str, ...], str, list[Note]]:
    """Names of images, the question without tags, and what changed by that."""
    head = _HEAD.match(prompt)
    start, rest = (head[0], prompt[head.end() :]) if head else ("", prompt)
    given = [match[1] for match in _TAG.finditer(start)]
    inside = rest.count(IMAGE_TAG)
    notes = [("TAGS_MOVED", f"{inside} {IMAGE_TAG} inside the text; images are shown before it")] if inside else []
    if not any(given):
        return (), rest.replace(IMAGE_TAG, ""), notes
    names = [name or f"Image-{place}" for place, name in enumerate([*given, *[None] * inside])]
    if not all(given):
        notes.append(("TAGS_MOVED", f"images without a name among others with one; called {', '.join(names)}"))
    return tuple(names), rest.replace(IMAGE_TAG, ""), notes
