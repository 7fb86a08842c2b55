"""What the classifier reads of a question: what is asked, without the texts of its options, which are mere topic."""

from functools import lru_cache

from medvl.router.forms import option_marks
from medvl.router.request import asked


@lru_cache(maxsize=4096)
def brief(question: str) -> str:
    """The asking part of a normalised question, of lettered or numbered options only the marks.

    >>> brief("What is it? A: a benign lesion, B: a malignant lesion")
    'What is it? A: B:'
    """
    text = asked(question)
    marks = option_marks(text)
    return f"{text[: marks[0].start()]}{' '.join(mark[0].strip() for mark in marks)}" if marks else text
