"""Records of stage 4 and 5 of M3LLM's data generation as samples. Its authors published no converter for them.

A record is a figure with its panels (`subcaptions`) and the questions made of it (`qa_pairs`). Prompts are those of the
training files: `Fig-0: <image>` for the figure, a line per panel, then context and question. Options are asked as in
PMC-MI-Bench.

The published code counts panels from 0 in what it stores and from 1 in what it asks the language model, except for
options. So questions and answers name the panel with `idx` 0 Fig-1, and that is what it is called here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medvl.boxes import Size
from medvl.sources.base import Problem, Row, Sample
from medvl.sources.pmc_files import Note
from medvl.sources.pmc_position import centre, in_words, relation_of, relation_said
from medvl.sources.pmc_rows import figures_not_shown, image_names, made
from medvl.sources.pmc_sets import PmcSet

CHOICE = "The question is {question} The candidate options are: {options}"
SizeOf = Callable[[str], Size | None]  # of an image by its name; None where it cannot be read


@dataclass(frozen=True)
class Reading:
    """How stage records are read.

    Attributes:
        size_of: Finds the size of a figure, in which boxes are.
        from_boxes: Whether positions are trained on as the boxes say, where the answer says another.
    """

    size_of: SizeOf
    from_boxes: bool = False


def stage_samples(part: PmcSet, rows: Sequence[Row], reading: Reading) -> list[Sample]:
    """The questions of all records; one without any is a sample with a problem."""
    samples: list[Sample] = []
    for line, row in enumerate(rows):
        for pair in _pairs(row) or [None]:
            samples.append(_sample(part, len(samples), line, row, pair, reading))
    return samples


def _pairs(row: Row) -> list[Any]:
    pairs = row.get("qa_pairs")
    if isinstance(pairs, Mapping):
        return [pairs]
    if isinstance(pairs, list) and pairs:
        return pairs
    return [row] if "question" in row else []  # as stage 5 falls back


def _sample(part: PmcSet, index: int, line: int, row: Row, pair: Any, reading: Reading) -> Sample:
    if not isinstance(pair, Mapping):
        problem = Problem("question", "QUESTION_EMPTY", f"qa_pairs holds {str(pair)[:80]!r}; expected questions")
        return made(part, index, row, line=line, question="", answer=None, images=[], problems=[problem])
    figure, problems = image_names(row.get("image"))
    panels, more = image_names(pair.get("selected_image_paths"))
    problems += more
    answer = pair.get("answer", pair.get("Answer"))
    question, notes = _question(pair), list[Note]()
    titles, renumbered = _titles(row, pair, panels, f"{question}\n{answer}")
    notes += renumbered
    target = None
    if _is_position(pair, panels):
        target, said = _position(row, figure, panels, titles, answer, reading)
        notes += said
        if "(unknown)" in f"{question} {answer}":
            problems.append(Problem("answer", "ANSWER_UNUSABLE", f"a box that was not there: {str(answer)[:200]!r}"))
    text_only = not panels and "image_path" in pair and part.kind != "compound"
    shown = [] if text_only else [*figure[:1], *panels]
    if not text_only and not figure and not problems:
        problems.append(Problem("images", "IMAGE_NAME", "the record names no image, so there is no Fig-0"))
        shown = []
    return made(part, index, row, line=line, question=question, answer=answer, images=shown,
                titles=["Fig-0", *titles] if shown else [], group=figure, target=target, notes=notes,
                problems=problems)  # fmt: skip


def _question(pair: Mapping[str, Any]) -> str:
    """Context and question, or the question with its options; the context of stage 5 instead of stage 4's."""
    question = str(pair.get("question", pair.get("Question")) or "").strip()
    if offered := pair.get("option", pair.get("options")):
        listed = "\n".join(map(str, offered)) if isinstance(offered, list) else str(offered)
        question = CHOICE.format(question=question, options=listed.strip()) if question else ""
    context = pair.get("improved context") or pair.get("context")
    # What the language model put around it: "**Improved Context**: …" is cut behind the second pair of asterisks.
    context = context.strip().lstrip(":*").strip() if isinstance(context, str) else ""
    return f"{context} {question}" if context and question else question


def _titles(row: Row, pair: Mapping[str, Any], panels: Sequence[str], text: str) -> tuple[list[str], list[Note]]:
    """What the panels are called, and what that changes about the stored numbers."""
    if not panels:
        return [], []
    stored = pair.get("image_index")
    stored = [str(name) for name in stored] if isinstance(stored, list) else []
    by_image = {panel.get("image"): panel.get("idx", panel.get("sub_idx")) for panel in _panels(row)}
    counted = [_number(by_image.get(name)) for name in panels]
    titles = [f"Fig-{number + 1}" for number in counted if number is not None]
    if len(titles) < len(panels) or ("option" not in pair and figures_not_shown(text, ["Fig-0", *titles])
                                     and not figures_not_shown(text, ["Fig-0", *stored])):  # fmt: skip
        titles = stored  # the text goes by these
    if len(titles) != len(panels):
        titles = [f"Fig-{place}" for place in range(1, len(panels) + 1)]
    if titles == stored:
        return titles, []
    return titles, [("FIGURE_RENUMBERED", f"image_index is {', '.join(stored) or 'not there'}; {', '.join(titles)} as "
                     "question and answer count")]  # fmt: skip


def _panels(row: Row) -> list[Mapping[str, Any]]:
    panels = row.get("subcaptions")
    return [panel for panel in panels if isinstance(panel, Mapping)] if isinstance(panels, list) else []


def _number(value: Any) -> int | None:
    text = str(value)
    return int(text) if text.isdecimal() else None


def _is_position(pair: Mapping[str, Any], panels: Sequence[str]) -> bool:
    return len(panels) == 2 and not {"context", "improved context", "option", "options"} & pair.keys()


def _position(row: Row, figure: Sequence[str], panels: Sequence[str], titles: Sequence[str], answer: Any,
              reading: Reading) -> tuple[str | None, list[Note]]:  # fmt: skip
    """What is trained on instead of the answer, and whether that agrees with the boxes."""
    size = reading.size_of(figure[0]) if figure else None
    boxes = {panel.get("image"): panel.get("bounding_box") for panel in _panels(row)}
    points = [centre(boxes.get(name), size) for name in panels] if size else []
    without = [name for name, point in zip(panels, points, strict=False) if point is None]
    if size is None or without:
        why = f"no box of {', '.join(without)}" if without else "the figure cannot be read"
        return None, [("POSITION_UNCHECKED", f"{why}; the answer stays as it is")]
    first, second = (point for point in points if point is not None)
    measured, said = relation_of(first, second, size), relation_said(str(answer), titles)
    if said is None:
        return None, [("POSITION_UNCHECKED", f"the answer does not name {' and '.join(titles)}: {str(answer)[:200]!r}")]
    if said == measured:
        return None, []
    words = f"{titles[0]} is {in_words(measured)} {titles[1]} in the compound image."
    trained = "the boxes'" if reading.from_boxes else "the answer's (--positions boxes trains on the boxes')"
    detail = f"by the boxes, {words} The answer: {str(answer)[:200]!r}. Trained on: {trained}"
    return words if reading.from_boxes else None, [("POSITION_DIFFERS", detail)]
