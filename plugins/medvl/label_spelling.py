"""The spelling of a label: understanding it folded its case, which scorers do not."""

import re


def as_listed(label: str, question: str) -> str | None:
    """The label as a list in the question spells it; a question says "normal" elsewhere without meaning the label.

    >>> as_listed("nodule", "Is it normal? Choose: Nodule, Old Fracture.")
    'Nodule'
    """
    before, after = r"(?:[;,:(\n]|\bor\b|\band\b|\b[A-Z][.)])", r"(?:[;,.?)\n]|$|or\b|and\b|\(?[A-Z][:.)])"
    match = re.search(rf"{before}\s*({_any_case(label)})(?!\w)(?=\s*{after})", question)
    return " ".join(match[1].split()) if match else None


def as_written(label: str, text: str) -> str:
    """The label as a model's text spells it, itself where it does not stand there."""
    match = re.search(rf"(?<!\w){_any_case(label)}(?!\w)", text)
    return " ".join(match[0].split()) if match else label


def _any_case(label: str) -> str:
    words = r"\s+".join(map(re.escape, label.split()))
    bracket = r"\)?" if label.count("(") > label.count(")") else ""  # understanding the label cut it off
    return f"(?i:{words}){bracket}"
