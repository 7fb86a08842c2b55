"""Refuses training texts with control tokens, before anything is loaded.

Such a text claims image places that no image fills (training then fails, or ends early), or closes its turn in the
middle. Importable without torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from medvl.control_tokens import BOX_MARKUP, KNOWN, control_tokens, known_control_tokens
from medvl.factory.data.records import read_records
from medvl.wording import few

_PLACEHOLDERS = {"<image>", "<video>", "<audio>"}  # LLaMA-Factory counts these itself
# Box markup as answers and questions are written with it: pairs around a name, pairs around numbers.
_NUMBERS = r"[\s\d.,()\[\]-]*"
_MARKED = re.compile(
    r"<ref>[^<>]*</ref>|<\|object_ref_start\|>[^<>]*<\|object_ref_end\|>"
    rf"|<box>{_NUMBERS}</box>|<quad>{_NUMBERS}</quad>"
    rf"|<\|box_start\|>{_NUMBERS}<\|box_end\|>|<\|quad_start\|>{_NUMBERS}<\|quad_end\|>"
)
_SHOWN = 10


def problems(names: Iterable[str], dataset_dir: str, model_name_or_path: str) -> list[str]:
    """One sentence about all records with control tokens, naming data set, record and place; nothing if there is none.

    Args:
        names: Data sets of the recipe. Only local .json and .jsonl files are read.
        dataset_dir: Folder of dataset_info.json.
        model_name_or_path: A local checkpoint's own special tokens are looked for too.
    """
    folder = Path(model_name_or_path)
    known = (known_control_tokens(folder) if folder.is_dir() else KNOWN) - _PLACEHOLDERS
    known = KNOWN if known == KNOWN else known  # the same object is faster to look for
    found = []
    for record in read_records(names, dataset_dir):
        for place, text in record.texts.items():
            if tokens := stray_control_tokens(text, known):
                found.append(f"{record}, {place}: {' '.join(tokens)}")
    if not found:
        return []
    return [
        "These records hold control tokens, which are no text for the model. Convert the data again (preprocessing "
        "sets such records aside), remove them, or write the tokens in another way:\n"
        + "\n".join(f"  {line}" for line in few(found, _SHOWN))
    ]


def stray_control_tokens(text: str, known: frozenset[str] = KNOWN) -> list[str]:
    """Control tokens in a text; complete box markup (`<ref>a</ref><box>[[1, 2, 3, 4]]</box>`) is none."""
    tokens = control_tokens(text, known)
    if BOX_MARKUP.isdisjoint(tokens):
        return tokens
    return control_tokens(_MARKED.sub(" ", text), known)
