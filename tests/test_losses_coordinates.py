"""Where coordinates and decisions stand in labels, for every text style and several tokenizers."""

import json
import time
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvl.box_text import BOX_STYLES, format_boxes, parse_boxes
from medvl.boxes import Frame, as_boxes

torch = pytest.importorskip("torch")

from medvl.demo import tokenizer as demo  # noqa: E402
from medvl.losses import vocabulary as vocabulary_module  # noqa: E402
from medvl.losses.coordinates import Targets, Vocabulary, find_targets  # noqa: E402
from medvl.losses.structure import read_structure  # noqa: E402

END = "<|im_end|>\n"
BOXES = [[1, 22, 333, 1000], [4, 5, 6, 7], [0, 10, 20, 30]]
NAMES = ["ship", "ship", "cell"]
TOKENIZERS = ("qwen", "internvl", "merging", "spaced")


def merging_corpus() -> list[str]:
    """Answers with many objects, so that the BPE merges what stands between two of them."""
    many = as_boxes(BOXES * 3)
    texts = [format_boxes(many, NAMES * 3, style, "norm1000") + " []" for style in BOX_STYLES]
    return [*texts, *demo.default_corpus(0, 50)] * 20


def spaced_corpus() -> list[str]:
    """Answers as `json.dumps` writes them."""
    return [json.dumps([{"bbox_2d": box, "label": "ship"} for box in BOXES])] * 50 + ["[] {} <box>[]</box>"]


@cache
def tokenizer_of(kind: str) -> Any:
    if kind == "internvl":
        return demo.internvl3_tokenizer(demo.default_corpus(0, 200), 600)
    corpus = {"qwen": demo.default_corpus(0, 200), "merging": merging_corpus(), "spaced": spaced_corpus()}[kind]
    return demo.qwen3_tokenizer(corpus, 600)


@cache
def vocabulary_of(kind: str) -> Vocabulary:
    return Vocabulary.of(tokenizer_of(kind))


def labels(kind: str, *answers: str, prompt: int = 3) -> Any:
    """One row: each answer behind a masked prompt."""
    row: list[int] = []
    for answer in answers:
        row += [-100] * prompt + tokenizer_of(kind).encode(answer, add_special_tokens=False)
    return torch.tensor([row])


def targets_of(kind: str, *answers: str, frame: Any = "norm1000", prompt: int = 3) -> Targets:
    return find_targets(labels(kind, *answers, prompt=prompt), vocabulary_of(kind), frame)


def coordinates(targets: Targets, unit: float = 1000) -> Any:
    """The true numbers that the targets spell, shape (n, 4)."""
    return np.round((targets.places * targets.digits).sum(-1).numpy() * unit, 6)


def decisions(kind: str, answer: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """(kind, true token, other tokens) of each decision, in the order of the text."""
    targets, row = targets_of(kind, answer), labels(kind, answer)[0].tolist()
    tokenizer = tokenizer_of(kind)

    def text(column: int) -> str:
        return str(tokenizer.decode([int(targets.columns[column])]))

    found = []
    for index in torch.argsort(targets.decision_rows, stable=True).tolist():
        choices = [column for column in targets.choices[index].tolist() if column >= 0]
        true, others = choices[0], choices[1:]
        assert row[int(targets.rows[targets.decision_rows[index]]) + 1] == int(targets.columns[true])
        assert bool(targets.fp_shares[index] > 0) != bool(targets.fn_shares[index] > 0)
        found.append(("fp" if targets.fp_shares[index] > 0 else "fn", text(true), tuple(sorted(map(text, others)))))
    return found


# Coordinates


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("style", BOX_STYLES)
@pytest.mark.parametrize("frame", Frame)
@settings(max_examples=8)
@given(data=st.data())
def test_the_targets_spell_what_the_parser_reads(kind: str, style: Any, frame: Any, data: Any) -> None:
    top = {"norm1000": 1000, "norm1": 1, "pixel": 4096}[frame]
    number = st.floats(-top, top).map(lambda value: round(value, 2)) if frame == "pixel" else st.floats(0, top)
    boxes = data.draw(st.lists(st.lists(number, min_size=4, max_size=4), max_size=12))
    names = data.draw(st.lists(st.sampled_from(["ship 42", "läsion", "船", "a]},{", "x"]), min_size=12, max_size=12))
    text = format_boxes(as_boxes(boxes), names[: len(boxes)], style, frame)
    targets = targets_of(kind, "Here: " + text + END, frame=frame)
    parsed = parse_boxes(text).boxes
    unit = {"norm1000": 1000, "norm1": 1, "pixel": max(1000, np.abs(parsed).max(initial=0))}[frame]
    assert targets.skipped == 0
    assert coordinates(targets, unit) == pytest.approx(parsed)


SPELLINGS = {
    "fenced": "```json\n" + json.dumps([{"bbox_2d": box, "label": "ship"} for box in BOXES], indent=4) + "\n```",
    "python": str([{"bbox_2d": box, "label": "ship, 42"} for box in BOXES]),
    "label first": json.dumps([{"label": "x [5, 6, 7, 8]", "bbox_2d": box} for box in BOXES]),
    "in an object": json.dumps({"count": 3, "objects": [{"bbox_2d": box} for box in BOXES]}),
    "as a string": json.dumps(str(BOXES)),
    "in prose": f'A 5" screen shows a "ship" at {BOXES[0]}, one at {BOXES[1]} and one at {BOXES[2]}: 3 of 42.',
    "corner pairs": str([[box[:2], box[2:]] for box in BOXES]),
    "tagged without brackets": "".join(f"<box>{str(box)[1:-1]}</box>" for box in BOXES),
    "tagged with Qwen's tokens": "".join(
        f"<|object_ref_start|>a<|object_ref_end|><|box_start|>({a},{b}),({c},{d})<|box_end|>" for a, b, c, d in BOXES
    ),
    "a box key with many": json.dumps({"bbox_2d": BOXES, "label": "ship"}),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS)
def test_other_spellings(kind: str, text: str) -> None:
    targets = targets_of(kind, text + END)
    assert coordinates(targets).tolist() == BOXES


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(
    "text",
    [
        "There are 42 ships, 1, 2, 3, 4.",
        '{"label":"ship 42","score":[1,2,3]}',
        "[1, 2, 3]",
        "B",
        "See [1] and [2]; none []",
        '[{"bbox_2d":[1,2,3',
    ],
)
def test_text_without_boxes_asks_for_nothing(kind: str, text: str) -> None:
    targets = targets_of(kind, text + END)
    assert targets.empty
    assert targets.boxes == targets.skipped == len(targets.decision_rows) == 0
    assert targets.columns.tolist() == list(vocabulary_of(kind).digits)


NO_BOXES = {
    "a key of a map": '{"at [1,2,3,4]":[[5,6,7,8]]}' + END,
    "a value under another key": '[{"bbox_2d":[5,6,7,8],"note":"near (1,2),(3,4)","label":"a"}]' + END,
    "a label in a list of labels": '{"labels":["a [1,2,3,4]"],"boxes":[[5,6,7,8]]}' + END,
    "a label cut off in it": '[{"bbox_2d":[5,6,7,8],"label":"a [1,2,3,4]',
    "a value cut off in it": '[{"bbox_2d":[5,6,7,8],"score":"[1,2,3,4],',
    "a key cut off in it": '{"a":[[5,6,7,8]],"b [1,2,3,4]',
    "a key cut off behind it": '{"a":[[5,6,7,8]],"b [1,2,3,4]"',
    "a tagged name cut off in it": "<ref>a</ref><box>[[5,6,7,8]]</box><ref>b [1,2,3,4]",
    "a tagged name cut off in its tag": "<ref>a</ref><box>[[5,6,7,8]]</box><ref>(1,2),(3,4)</re",
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", NO_BOXES.values(), ids=NO_BOXES)
def test_box_like_text_that_is_a_name_is_no_box(kind: str, text: str) -> None:
    assert coordinates(targets_of(kind, text)).tolist() == [[5, 6, 7, 8]]


@pytest.mark.parametrize("text", ['{"bbox_2d":"[5,6,7,8]"}', '{"answer":"[[5,6,7,8]]"}', 'It is "at [5,6,7,8]".'])
def test_boxes_given_as_a_string_are_boxes(text: str) -> None:
    assert coordinates(targets_of("qwen", text + END)).tolist() == [[5, 6, 7, 8]]


@settings(max_examples=100)
@given(names=st.lists(st.sampled_from(["[1,2,3,4]", "a (1,2),(3,4)", "x [9, 8, 7, 6] y", "ship"]), max_size=4),
       style=st.sampled_from(["json", "internvl", "qwen_vl1", "map"]), share=st.floats(0, 1))  # fmt: skip
def test_wherever_it_is_cut_off_only_its_own_boxes_are_read(names: list[str], style: Any, share: float) -> None:
    names = sorted(names)
    boxes = [[100 + index, 200, 300, 400] for index in range(len(names))]
    text = format_boxes(as_boxes(boxes), names, style, "norm1000")
    found = coordinates(targets_of("qwen", text[: int(share * len(text))])).tolist()
    assert found == boxes[: len(found)]
    if share == 1:
        assert found == boxes


def test_rows_predict_the_tokens_one_further_and_ignore_other_digits() -> None:
    answer = '[{"bbox_2d":[12,3,45,6],"label":"ship 42"}]' + END
    targets, row = targets_of("qwen", answer), labels("qwen", answer)[0]
    asked = [int(row[int(targets.rows[index]) + 1]) for index in targets.digit_rows[targets.places != 0]]
    digit = {token: value for value, token in enumerate(vocabulary_of("qwen").digits)}
    assert [digit[token] for token in asked] == [1, 2, 3, 4, 5, 6]


def test_a_cut_off_answer_gives_its_whole_boxes() -> None:
    text = format_boxes(as_boxes(BOXES), NAMES, "json", "norm1000")
    for length in range(len(text)):
        targets = targets_of("merging", text[:length])
        whole = text[:length].count("]") - (text[:length].endswith("}]"))
        assert targets.boxes == whole
        assert coordinates(targets).tolist() == BOXES[:whole]
        assert (targets.fp_shares > 0).sum() == 0  # nothing shows that the list ends


def test_a_list_that_is_cut_off_behind_another_one_can_only_end() -> None:
    targets = targets_of("qwen", "[[1,2,3,4]], [[5,6,7,8],")
    assert coordinates(targets).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert (targets.fn_shares > 0).sum() == 2


@pytest.mark.parametrize("count", [1, 2, 9, 200])
@pytest.mark.parametrize("style", BOX_STYLES)
def test_any_number_of_boxes(count: int, style: Any) -> None:
    boxes = np.random.default_rng(count).integers(0, 1001, (count, 4)).astype(float)
    names = [f"object {index % 7}" for index in range(count)]
    text = format_boxes(boxes, names, style, "norm1000")
    targets = targets_of("qwen", text + END)
    assert coordinates(targets) == pytest.approx(parse_boxes(text).boxes)
    assert float(targets.digit_shares.sum()) == pytest.approx(1)
    assert float(targets.box_shares.sum()) == pytest.approx(1)
    assert float(targets.fp_shares.sum()) == pytest.approx(1)


def test_a_digit_inside_a_larger_token_leaves_its_box_out() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {piece: index for index, piece in enumerate([*alphabet, "12"])}
    fast = Tokenizer(models.BPE(words, [("1", "2")]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast)
    row = tokenizer.encode("[[12,3,4,5],[6,7,8,9],[3,4,5,612]]")
    targets = find_targets(torch.tensor([[-100, *row]]), Vocabulary.of(tokenizer))
    assert (targets.boxes, targets.skipped) == (1, 2)
    assert coordinates(targets).tolist() == [[6, 7, 8, 9]]
    assert (targets.fn_shares > 0).sum() == 3


def test_a_tokenizer_that_cannot_serve_is_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(["?", *"0123456789"])}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="?")))
    with pytest.raises(ValueError, match="byte-level"):
        Vocabulary.of(tokenizer)
    del words["7"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(words | {"a": 11}, [])))
    with pytest.raises(ValueError, match="each digit as one token"):
        Vocabulary.of(tokenizer)


def test_a_number_that_is_damage_leaves_its_box_out() -> None:
    targets = targets_of("qwen", f"[[1,2,3,4],[{'9' * 400},2,3,4],[1,2,3,1234567890],[1,2,3,123456789]]" + END)
    assert (targets.boxes, targets.skipped) == (2, 2)


@pytest.mark.parametrize("kind", ["qwen", "internvl", "merging"])
def test_wherever_an_answer_is_cut_off_its_first_box_is_a_reason_not_to_stop(kind: str) -> None:
    row = labels(kind, format_boxes(as_boxes([[1, 2, 30, 40]]), ["left lung"], "json", "norm1000") + END)[0]
    cuts = [find_targets(row[None, :stop], vocabulary_of(kind)) for stop in range(2, len(row) + 1)]
    assert any(targets.boxes for targets in cuts[:-3])
    for targets in cuts:
        assert float(targets.fn_shares.sum()) == pytest.approx(targets.boxes)


NOISE = "#noise"


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("style", [style for style in BOX_STYLES if style != "flare"])
def test_coordinates_of_noise_objects_are_not_asked_for_and_what_decides_is(kind: str, style: Any) -> None:
    drawn = [[9, 9, 99, 999], [8, 8, 88, 888]]
    text = format_boxes(as_boxes(BOXES + drawn), [*NAMES, NOISE, NOISE], style, "norm1000") + END
    real = format_boxes(as_boxes(BOXES + drawn), [*NAMES, "noise", "noise"], style, "norm1000") + END
    targets, as_objects = targets_of(kind, text), targets_of(kind, real)
    assert coordinates(targets).tolist() == BOXES
    assert coordinates(as_objects).tolist() == BOXES + drawn  # a class that is really called so
    assert targets.box_shares.tolist() == pytest.approx([1 / 3] * 3)
    assert targets.skipped == 0
    assert len(targets.decision_rows) == len(as_objects.decision_rows)
    alone = format_boxes(as_boxes(drawn), [NOISE, NOISE], style, "norm1000")
    assert targets_of(kind, alone + END).boxes == targets_of(kind, alone[:-2]).boxes == 0


# Shares


def test_means_within_rows_then_over_all_rows() -> None:
    one = labels("qwen", "[[1,2,3,4]]" + END)[0]
    turns = labels("qwen", "[[1,2,3,4],[5,6,7,8]]" + END, "Three.", "[]" + END)[0]
    none = labels("qwen", "No box here.")[0]
    batch = torch.nn.utils.rnn.pad_sequence([one, turns, none], batch_first=True, padding_value=-100)
    targets = find_targets(batch, vocabulary_of("qwen"))
    assert targets.boxes == 3
    assert targets.box_shares.tolist() == pytest.approx([1 / 3, 1 / 6, 1 / 6])
    assert targets.digit_shares.sum((1, 2)).tolist() == pytest.approx([1 / 3, 1 / 6, 1 / 6])
    of_row = targets.rows[targets.decision_rows] // batch.shape[1]
    for shares in (targets.fp_shares, targets.fn_shares):
        assert [float(shares[of_row == row].sum()) for row in range(3)] == pytest.approx([1 / 3, 1 / 3, 0])
    single = [find_targets(row[None], vocabulary_of("qwen")) for row in (one, turns)]
    shifted = [row + index * batch.shape[1] for index, target in enumerate(single) for row in target.rows.tolist()]
    assert targets.rows.tolist() == shifted


def test_place_weights_fall_to_the_right_and_signs_are_kept() -> None:
    targets = targets_of("qwen", "[[-12.5, 3, 400, 1000]]" + END, frame="pixel")
    assert coordinates(targets)[0].tolist() == [-12.5, 3, 400, 1000]
    shares = targets.digit_shares[0, 0][:3]
    assert (shares[:-1] / shares[1:]).tolist() == pytest.approx([1.2, 1.2])
    assert targets.digit_shares[0].sum(-1).tolist() == pytest.approx([1 / 4] * 4)


@pytest.mark.parametrize("frame", ["pixel", "norm1000", "norm1"])
def test_what_goes_beyond_its_frame_sets_the_unit(frame: Any) -> None:
    targets = targets_of("qwen", "[[0, 0, 2000, 500]]" + END, frame=frame)
    assert coordinates(targets, 1).tolist() == [[0, 0, 1, 0.25]]


# Decisions

DECISIONS = {
    # `"},{"`, `]]}`, `],[` and `[[` are one token each.
    "merging, json": ("merging", "json", [
        ("fn", '[{"', ("[",)), ("fn", '"},{"', ('"}]',)), ("fn", '"},{"', ('"}]',)), ("fp", '"}]', ('"},{"',)),
    ]),
    "merging, map: another box, another key, the end": ("merging", "map", [
        ("fn", '{"', ("{",)), ("fn", "],[", (']],"', "]]}")), ("fn", ']],"', ("]]}",)), ("fp", ']],"', ("],[",)),
        ("fp", "]]}", ("],[", ']],"')),
    ]),
    "tags as special tokens, lists": ("internvl", "internvl", [
        ("fn", "<ref>", ("<box>",)), ("fn", "]", ("]]",)), ("fp", "]]", ("]",)), ("fn", "<ref>", ("<|im_end|>",)),
        ("fp", "]]", ("]",)), ("fp", "<|im_end|>", ("<ref>",)),
    ]),
    "tags as special tokens, corners": ("internvl", "qwen_vl1", [
        ("fn", "<ref>", ("<box>",)), ("fn", "<ref>", ("<|im_end|>",)), ("fn", "<ref>", ("<|im_end|>",)),
        ("fp", "<|im_end|>", ("<ref>",)),
    ]),
    "tags as text": ("merging", "qwen_vl1", [
        ("fn", "<ref", ("<",)), ("fn", "><", (">",)), ("fn", "><", (">",)), ("fp", ">", ("><",)),
    ]),
    "a space that is a token": ("qwen", "flare", [
        ("fn", "[", ("]",)), ("fn", "]", ("]]",)), ("fn", "]", ("]]",)), ("fp", "]]", ("]",)),
    ]),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "style", "expected"), DECISIONS.values(), ids=DECISIONS)
def test_decisions(kind: str, style: Any, expected: Any) -> None:
    assert decisions(kind, format_boxes(as_boxes(BOXES), NAMES, style, "norm1000") + END) == expected


def test_one_box_per_key_is_a_map_where_the_key_names_an_object() -> None:
    assert decisions("merging", '{"nucleus":[1,2,3,4],"cell":[5,6,7,8]}' + END) == [
        ("fn", '{"', ("{",)), ("fn", '],"', ("]",)), ("fp", "]", ('],"',)),
    ]  # fmt: skip
    assert decisions("merging", '{"bbox_2d":[1,2,3,4],"label":"cell"}' + END) == []
    assert [kind for kind, *_ in decisions("merging", '[{"region":[1,2,3,4]}]' + END)] == ["fn", "fp"]


def test_an_empty_list_in_one_token_against_one_object() -> None:
    assert decisions("spaced", "[]" + END) == [("fp", "[]", ("[", '[{"'))]
    assert decisions("spaced", "```json\n[]\n```" + END)[0][:2] == ("fp", "[]")
    assert decisions("internvl", '{"1":[[1,2,3,4]],"2":[]}' + END)[-1] == ("fp", "]", ("[",))


@pytest.mark.parametrize(
    "cut", ["<ref>b</ref><box>[[5,6", "<ref>b</ref><box>[[5,6,7,8],[9", "<ref>b</ref>", "<ref>b", "<re"]
)
def test_a_tagged_answer_cut_off_in_its_next_object_goes_on(cut: str) -> None:
    for kind in TOKENIZERS:
        found = decisions(kind, "<ref>a</ref><box>[[1,2,3,4]]</box>" + cut)
        assert [decision for decision, *_ in found if decision == "fp"] == ["fp"]  # the end of the list of a
        of_text = read_structure("<ref>a</ref><box>[[1,2,3,4]]</box>" + cut, END.strip()).decisions
        assert [(d.at, d.other) for d in of_text if not d.more and d.at == 34] == [(34, END.strip())]
    assert decisions("internvl", "<ref>a</ref><box>[[1,2,3,4]]</box><ref>b")[-1] == ("fn", "<ref>", ("<|im_end|>",))


def test_a_tagged_answer_cut_off_between_objects_decides_nothing_there() -> None:
    of_text = read_structure("<ref>a</ref><box>[[1,2,3,4]]</box>\n", END.strip()).decisions
    assert all(decision.at < 34 for decision in of_text)


FENCED = '```json\n[{"bbox_2d":[1,2,3,4]}'


@pytest.mark.parametrize("text", [FENCED + "]\n```" + END, FENCED + "]", FENCED + ",", FENCED])
def test_in_a_code_fence_the_empty_answer_is_fenced_too(text: str) -> None:
    first = read_structure(text, END.strip()).decisions[0]
    assert (first.at, first.other.rstrip()) == (8, "[]\n```" + END.strip())


def test_without_a_fence_the_empty_answer_ends() -> None:
    first = read_structure(FENCED[8:] + "]" + END, END.strip()).decisions[0]
    assert (first.at, first.other.rstrip()) == (0, "[]" + END.strip())


def first_difference(kind: str, answer: str, other: str) -> tuple[int, int]:
    """(position, token of `other`) of the first token in which two answers differ."""
    ours, theirs = (tokenizer_of(kind).encode(text, add_special_tokens=False) for text in (answer, other))
    position = next(index for index, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
    return position, theirs[position]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("style", BOX_STYLES)
@settings(max_examples=12)
@given(names=st.lists(st.sampled_from(["ship", "a)", "läs", "船 3", '"q"', "b"]), max_size=6), data=st.data())
def test_each_shorter_and_longer_answer_branches_off_at_a_decision(
    kind: str, style: Any, names: list[str], data: Any
) -> None:
    names = sorted(names)  # so that the objects of one name stand together, as the grouped styles write them
    boxes = data.draw(st.lists(st.lists(st.integers(0, 1000), min_size=4, max_size=4), min_size=7, max_size=7))

    def answer(names: list[str]) -> str:
        return format_boxes(as_boxes(boxes[: len(names)]), names, style, "norm1000") + END

    said = answer(names)
    targets = targets_of(kind, said, prompt=1)
    found = {}
    for row, choices, fp in zip(targets.decision_rows, targets.choices, targets.fp_shares, strict=True):
        others = {int(targets.columns[column]) for column in choices[1:] if column >= 0}
        found[int(targets.rows[row]), bool(fp > 0)] = others
    for count in range(len(names)):
        position, token = first_difference(kind, said, answer(names[:count]))
        assert token in found[position, False]
    more = [[*names, names[-1]], [*names, "zz"]] if names else [["a"]]
    # A new class in a tagged list is `<ref>`, as another object of the class is in the styles that do not group.
    for longer in more:
        position, token = first_difference(kind, said, answer(longer))
        assert token in found[position, True]


def test_labels_tokenised_otherwise_keep_their_boxes_and_lose_the_decisions() -> None:
    text = format_boxes(as_boxes(BOXES), NAMES, "json", "norm1000")
    row = [token for character in text for token in tokenizer_of("merging").encode(character, add_special_tokens=False)]
    targets = find_targets(torch.tensor([[-100, *row]]), vocabulary_of("merging"))
    assert coordinates(targets).tolist() == BOXES
    assert len(targets.decision_rows) == 0


# Speed


def test_the_same_labels_are_looked_at_once_until_others_push_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_module, "REMEMBERED_ANSWERS", 2)
    tokenizer = tokenizer_of("qwen")
    vocabulary = Vocabulary.of(tokenizer)
    texts = [f'[{{"bbox_2d":[{n},2,3,4],"label":"a"}},{{"bbox_2d":[5,6,7,8],"label":"a"}}]' for n in range(4)]
    rows = [np.array(tokenizer.encode(text + END, add_special_tokens=False)) for text in texts]
    first = vocabulary.answer(rows[0])
    assert vocabulary.answer(rows[0].copy()) is first
    for row in rows[1:]:
        vocabulary.answer(row)
    assert vocabulary.answer(rows[0]) is not first
    assert (vocabulary.answer(rows[0]).positions == first.positions).all()


@pytest.mark.slow
def test_time_grows_with_the_length_not_its_square() -> None:
    def seconds(count: int) -> float:
        boxes = np.random.default_rng(0).integers(0, 1001, (count, 4)).astype(float)
        texts = [format_boxes(boxes, [f"c{i % 50}" for i in range(count)], style, "norm1000") for style in BOX_STYLES]
        rows = [labels("qwen", text + END) for text in texts]
        start = time.process_time()
        for row in rows:
            find_targets(row, Vocabulary.of(tokenizer_of("qwen")))
        return time.process_time() - start

    # Five times as long is linear; the best of some tries, since a busy machine slows single ones.
    assert min(seconds(1000) for _ in range(3)) < 12 * max(min(seconds(200) for _ in range(3)), 0.02)


PIECES = ["[", "]", "{", "}", "(", ")", ",", ":", '"', "'", "\n", " ", "[1,2,3,4]", "(1,2),(3,4)", "[1,2]", "-0.5",
          "12", '"bbox_2d"', '"label"', '"a"', "<ref>", "</ref>", "<box>", "</box>", "läs", "\\", "```json", "[]",
          END]  # fmt: skip


@settings(max_examples=300)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=40))
def test_any_text_is_taken(pieces: list[str]) -> None:
    targets = targets_of("merging", "".join(pieces), prompt=1)
    assert (targets.rows[1:] > targets.rows[:-1]).all()
    assert targets.boxes == len(targets.digit_rows) == len(targets.box_shares)
    assert len(targets.decision_rows) == len(targets.choices) == len(targets.fp_shares)
    assert not len(targets.decision_rows) or (targets.choices[:, :2] >= 0).all()


@pytest.mark.parametrize(
    "text",
    ["[" * 3000, '{"a":' * 500 + "[[1,2,3,4],[5,6,7,8]", '"' * 3001, "<box>" * 3000, "[[1,2,3,4]," * 2000, " " * 9000],
)
def test_long_and_deep_text_is_taken_in_time(text: str) -> None:
    start = time.process_time()
    targets_of("qwen", text + END, prompt=1)
    assert time.process_time() - start < 2
