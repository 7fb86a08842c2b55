"""Which prediction answers which reference: by id, by the challenge's key, or by row."""

import re
import unicodedata
from collections import defaultdict, deque
from collections.abc import Hashable, Sequence

from evaluation.samples import How, Joined, Prediction, PredictionFile, References
from medvl.errors import DataError


def join(references: References, predictions: PredictionFile) -> Joined:
    """Join by row for LLaMA-Factory's files, by id where both sides have ids, else by images and question.

    Raises:
        DataError: the sides do not fit: nothing matches, or rows do not pair up.
    """
    if predictions.shape.name == "llamafactory":
        return _by_row(references, predictions)
    if predictions.shape.name == "by_id":
        if not references.have_ids:
            raise DataError(
                f"{predictions.path} is keyed by id, but {references.path} has no ids; "
                "give the converted file or the FLARE tree as --references"
            )
        joined = _by_key(
            "id", references, predictions, [item.id for item in references.items], [row.id for row in predictions.rows]
        )
    elif predictions.shape.name == "m3llm":
        sides = [item.question for item in references.items], [row.question for row in predictions.rows]
        joined = _by_key("key", references, predictions, *([" ".join(text.split()) for text in side] for side in sides))
    else:
        # Two datasets may ask the same about images of the same name; few prediction files say which is meant.
        named = all(row.dataset for row in predictions.rows)
        joined = _by_key(
            "key",
            references,
            predictions,
            [_key(item.dataset if named else None, item.key_names, item.question) for item in references.items],
            [_key(row.dataset if named else None, row.images, row.question) for row in predictions.rows],
        )
    return joined


def _key(dataset: str | None, images: Sequence[str], question: str) -> Hashable:
    """The challenge's key. Converted data holds absolute paths, so the last two parts of an image's path count."""
    names = tuple("/".join(image.replace("\\", "/").split("/")[-2:]) for image in images)
    return dataset, names, " ".join(question.split())


def _by_key(
    how: How,
    references: References,
    predictions: PredictionFile,
    reference_keys: Sequence[Hashable],
    prediction_keys: Sequence[Hashable],
) -> Joined:
    """Pair equal keys; where a key occurs several times on both sides, in the order of the files.

    FLARE has one such question (PRML_02339.jpg, tooth 46); a join through a dict would lose a row.
    """
    waiting: dict[Hashable, deque[Prediction]] = defaultdict(deque)
    for key, prediction in zip(prediction_keys, predictions.rows, strict=True):
        waiting[key].append(prediction)
    pairs = [
        (reference, waiting[key].popleft() if waiting.get(key) else None)
        for key, reference in zip(reference_keys, references.items, strict=True)
    ]
    known = set(reference_keys)
    left = {prediction.row for queue in waiting.values() for prediction in queue}
    joined = Joined(how, pairs)
    for key, prediction in zip(prediction_keys, predictions.rows, strict=True):
        if prediction.row in left:
            (joined.duplicates if key in known else joined.extra).append(prediction)
    if len(joined.extra) == len(predictions.rows):
        raise DataError(
            f"no prediction of {predictions.path} matches a reference of {references.path}; joined by "
            f"{'id' if how == 'id' else 'dataset, images and question'}, where the first prediction has "
            f"{prediction_keys[0]!r} and the first reference {reference_keys[0]!r}"
            f"{_of_another_name(reference_keys, prediction_keys) if how == 'id' else ''}"
        )
    return joined


def _of_another_name(references: Sequence[Hashable], predictions: Sequence[Hashable]) -> str:
    """The cure where ids differ in their first part alone, which is `--name` of the conversion."""
    rest = {str(name).partition("/")[2]: str(name).partition("/")[0] for name in references}
    first, _, row = str(predictions[0]).partition("/")
    if not row or row not in rest:
        return ""
    return (
        f". Ids begin with the --name of the conversion, here {first!r} and {rest[row]!r}: give the converted file of "
        f"--name {first} as --references (in a tree all begin with 'flare')"
    )


def _by_row(references: References, predictions: PredictionFile) -> Joined:
    """Pair rows of generated_predictions.jsonl with the converted file it was made from.

    Its rows have no id. Equal counts and equal targets are what shows that the pairing is right.
    """
    total = len(references.items) + references.unanswered
    if references.kind != "records":
        raise DataError(
            f"{predictions.path} has no ids; give the converted file that LLaMA-Factory predicted as --references, "
            f"not {references.path}"
        )
    if len(predictions.rows) != total:
        raise DataError(
            f"{predictions.path} has {len(predictions.rows)} rows, but {references.path} has {total} records; "
            "rows can be paired only if the whole file was predicted (no max_samples, no other eval_dataset) and "
            "LLaMA-Factory dropped none"
        )
    pairs = [(reference, predictions.rows[reference.row]) for reference in references.items]
    wrong = [(item, row) for item, row in pairs if not _same_target(row.label or "", item.target or "")]
    if wrong:
        item, row = wrong[0]
        raise DataError(
            f"{predictions.path} was not made from {references.path}: {len(wrong)} of {len(pairs)} labels differ from "
            f"the targets, first in row {row.row} ({item.id}): label {row.label!r}, target {item.target!r}"
        )
    return Joined("row", list(pairs))


# Some of a target's marks are special tokens, which LLaMA-Factory strips from labels.
_SPECIAL = re.compile(r"</?(?:ref|box|quad)>|<\|[^|<>]*\|>|\s+")
# A target longer than cutoff_len is cut off; a start this long is still no coincidence.
_CUT_OFF = 100


def _same_target(label: str, target: str) -> bool:
    # Qwen's tokenizer composes characters (NFC), so a label may be spelled so where its target is not.
    said, expected = (_SPECIAL.sub("", unicodedata.normalize("NFC", text)) for text in (label, target))
    return said == expected or (len(said) >= _CUT_OFF and expected.startswith(said))
