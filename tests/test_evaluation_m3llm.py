"""PMC-MI-Bench's rules: what M3LLM's two releases compute, and what marks the first one's numbers."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.bleu_score import sentence_bleu

from evaluation import model_based_metrics, sentence_models
from evaluation.metrics.m3llm import bleu, letter, rouge
from evaluation.metrics.m3llm_v1 import judged, offered_texts
from evaluation.metrics.registry import known_rules
from evaluation.run import main

# As in the published file: the first option stands behind the question, the others on lines of their own.
ASKED = (
    "The question is Which one? The candidate options are: A. smooth borders\nB. rough borders\nC. no mass\nD. oedema"
)
SENTENCE = "Fig-1 shows a solid mass. No oedema is seen."


def record(index: int, dataset: str, question: str, answer: str) -> dict[str, Any]:
    choice = dataset == "qa-subimage-option"
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    source = {"split": "test", "file": "f.json", "index": index, "sizes": [], "answer": answer, "names": []}
    return {"id": f"pmc/test/PMC-MI-Bench/{dataset}/{index:06d}", "dataset": dataset, "conversations": turns,
            "task": "classification" if choice else "report_generation", "images": [], "source": source}  # fmt: skip


@pytest.fixture
def scored(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`scored(records, texts, …)`: metrics.json."""

    def run(records: list[dict[str, Any]], texts: list[str | None], *options: str) -> dict[str, Any]:
        references, predictions = tmp_path / "r.json", tmp_path / "p.jsonl"
        references.write_text(json.dumps(records))
        rows = [{"id": one["id"], "prediction": text} for one, text in zip(records, texts, strict=True)]
        predictions.write_text("\n".join(map(json.dumps, rows)))
        words = ["--references", str(references), "--force", "--out", str(tmp_path / "out"), "--no-page"]
        assert main([str(predictions), *words, *options]) == 0
        made: dict[str, Any] = json.loads((tmp_path / "out" / "metrics.json").read_text())
        return made

    return run


words = st.lists(st.sampled_from(["a", "mass", "mass.", "Fig-1", "is", "No.", "seen", "."]), max_size=14).map(" ".join)


@given(words, words.filter(str.strip), st.integers(1, 4))
def test_bleu_is_that_of_nltk_without_smoothing(text: str, truth: str, order: int) -> None:
    sides = [side.lower().replace(".", " .").split() for side in (truth, text)]
    weights = tuple([1 / order] * order)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no n-gram in common
        expected = sentence_bleu([sides[0]], sides[1], weights=weights)
    assert bleu(text, truth, order) == pytest.approx(expected, abs=1e-9)


def test_rouge_is_of_sets_and_0_where_there_are_no_words() -> None:
    assert rouge("mass mass mass", "mass")[0] == pytest.approx(1, abs=1e-6)
    assert rouge("a b c d", "a b x d") == pytest.approx((0.75, 1 / 3, 0.75), abs=1e-6)
    assert rouge("...", SENTENCE) == rouge("", SENTENCE) == (0, 0, 0)
    assert rouge(SENTENCE.upper(), SENTENCE) == pytest.approx((1, 1, 1), abs=1e-6)


@pytest.mark.parametrize(
    ("text", "strict", "first"),
    [
        ("D", "D", True),
        ("d", "D", True),
        (" D\n", "D", True),
        ("D.", None, True),
        ("The answer is D", None, True),
        ("A", "A", False),
        ("E", None, False),
        ("D, since oedema is seen", None, False),
        ("<answer>D</answer>", None, True),
        ("", None, False),
    ],
)
def test_a_letter_is_strict_in_the_second_release_and_not_in_the_first(
    text: str, strict: str | None, first: bool
) -> None:
    assert letter(text, ASKED) == strict
    assert judged(ASKED, "D", text) == first


def test_the_first_release_guesses_by_likeness_and_misses_the_first_option() -> None:
    assert offered_texts(ASKED) == ["rough borders", "no mass", "oedema"]
    assert judged(ASKED, "A", "It has rough borders, I think")  # B's text has the place of A
    assert not judged(ASKED, "B", "It has rough borders, I think")
    assert offered_texts("Which? A. one\nand more B. two") == ["one\nand more", "two"]
    assert not judged("Which?", "A", "A")


def choices(*truths: str) -> list[dict[str, Any]]:
    return [record(place, "qa-subimage-option", ASKED, truth) for place, truth in enumerate(truths)]


def test_compat_v1_leaves_out_what_is_no_letter_and_says_so(
    scored: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["A", "B", "I cannot tell.", None, "It is smooth"]
    metrics = scored(choices("A", "B", "C", "D", "A"), texts, "--rules", "m3llm", "--compat", "v1")
    strict = metrics["tasks"]["classification"]
    inflated = metrics["other_rules"]["m3llm-v1"]["tasks"]["classification"]
    assert strict["accuracy"]["value"] == 0.4 and strict["accuracy"]["n_invalid"] == 3
    assert strict["f1_macro"]["value"] == pytest.approx((2 / 3 + 1 + 0 + 0) / 4)
    assert [inflated[f"{name}_of_letters"]["value"] for name in ("accuracy", "precision", "recall", "f1")] == [1] * 4
    assert inflated["letters"]["value"] == 0.4 and inflated["accuracy_by_likeness"]["n_invalid"] == 0
    assert "accuracy" not in inflated and "f1_macro" not in inflated
    assert metrics["provenance"]["rules"] == ["m3llm", "m3llm-v1"]
    found = metrics["provenance"]["gate"]["inflated_rules"]
    assert found["count"] == 5
    printed = capsys.readouterr()
    assert "m3llm-v1" in printed.out and "3 of them answered by no bare letter" in printed.err.replace("\n", " ")


def test_macro_values_are_scikit_learns(scored: Callable[..., dict[str, Any]]) -> None:
    from sklearn.metrics import precision_recall_fscore_support

    truths, texts = list("ABCDABCDAABB"), list("ABCAABDDABBA")
    metrics = scored(choices(*truths), list(texts), "--rules", "m3llm", "--compat", "v1")
    labels = sorted({*truths, *texts})
    expected = precision_recall_fscore_support(truths, texts, labels=labels, average="macro", zero_division=0)
    for rules, names in (
        (metrics, [f"{name}_macro" for name in ("precision", "recall", "f1")]),
        (metrics["other_rules"]["m3llm-v1"], [f"{name}_of_letters" for name in ("precision", "recall", "f1")]),
    ):
        values = [rules["tasks"]["classification"][name]["value"] for name in names]
        assert values == pytest.approx(expected[:3])


def test_sentences_with_intervals_and_a_missing_one_as_nothing(scored: Callable[..., dict[str, Any]]) -> None:
    records = [record(place, "qa-bbox", f"What is {place}?", SENTENCE) for place in range(40)]
    texts = [SENTENCE if place % 2 else None for place in range(40)]
    metrics = scored(records, texts, "--rules", "m3llm", "--compat", "v1")
    scores = metrics["datasets"]["qa-bbox"]["report_generation"]
    for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_1", "rouge_2", "rouge_l"):
        assert scores[name]["value"] == pytest.approx(0.5, abs=1e-6) and scores[name]["n"] == 40
        low, high = scores[name]["ci95"]
        assert 0.3 < low < 0.5 < high < 0.7
    assert scores["sts"]["value"] is None and "--report-metrics sts" in scores["sts"]["reason"]
    old = metrics["other_rules"]["m3llm-v1"]["tasks"]["report_generation"]
    assert [old[name]["value"] for name in ("em", "word_f1", "word_recall")] == [0.5] * 3


def test_models_of_sentences_and_the_extra(
    scored: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def scorer(texts: Any, truths: Any, model: str) -> list[float]:
        assert len(texts) == len(truths) == 1 and model == sentence_models.MODELS["sts"]
        return [0.8]

    records = [record(place, "qa-bbox", f"What is {place}?", SENTENCE) for place in range(2)]
    monkeypatch.setattr(sentence_models, "_SCORERS", {"sts": scorer})
    metrics = scored(records, ["A mass.", None], "--rules", "m3llm", "--report-metrics", "sts")
    assert metrics["tasks"]["report_generation"]["sts"]["value"] == 0.4  # what is missing is worth 0
    assert metrics["provenance"]["report_metrics"] == ["sts"]

    def absent(*_: Any) -> Any:
        raise ImportError("No module named 'sentence_transformers'")

    monkeypatch.setattr(model_based_metrics, "sentence_scores", absent)
    words = [str(tmp_path / "p.jsonl"), "--references", str(tmp_path / "r.json"), "--force", "--report-metrics", "sts"]
    assert main(words) == 2
    assert "[m3llm]" in capsys.readouterr().err.replace("\n", "")


def test_the_published_form_of_predictions_is_read(tmp_path: Path) -> None:
    records = [record(place, "qa-bbox", f"Where is  {place}?", SENTENCE) for place in range(3)]
    rows = [{"id": str(place), "task": "bboxVQA", "model": "m", "question": f"Where is {place}?",
             "reference_answer": SENTENCE, "prediction": SENTENCE if place else "no", "metrics": {"bleu1": 0}}
            for place in (2, 0, 1)]  # fmt: skip
    (tmp_path / "r.json").write_text(json.dumps(records))
    (tmp_path / "bboxVQA_m.json").write_text(json.dumps(rows))
    words = ["--references", str(tmp_path / "r.json"), "--rules", "m3llm", "--no-page", "--out", str(tmp_path / "out")]
    assert main([str(tmp_path / "bboxVQA_m.json"), *words]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["provenance"]["predictions"]["shape"] == "m3llm" and metrics["counts"]["matched"] == 3
    lines = [json.loads(line) for line in (tmp_path / "out" / "per_sample.jsonl").read_text().splitlines()]
    assert [line["prediction"] == "no" for line in lines] == [True, False, False]


def test_rules_are_known_by_name() -> None:
    assert {"m3llm", "m3llm-v1"} <= set(known_rules())


@pytest.fixture
def tiny_bert(tmp_path: Path) -> str:
    """A checkpoint of two layers with random weights, and a tokenizer that knows a few words."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "mass", "oedema", "is", "seen", "no", "the", "left"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), **size)).save_pretrained(tmp_path / "bert")
    return str(tmp_path / "bert")


@pytest.mark.parametrize("name", ["bertscore_mnli", "sts"])
def test_the_libraries_of_the_extra_score_what_they_are_given(
    name: str, tiny_bert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = pytest.importorskip("bert_score.utils").model2layers
    pytest.importorskip("sentence_transformers")
    monkeypatch.setitem(layers, tiny_bert, 2)
    monkeypatch.setattr(sentence_models, "MODELS", {name: tiny_bert})
    texts, truths = ["a mass is seen", "no oedema"], ["a mass is seen", "the left mass"]
    scores = sentence_models.sentence_scores([name], texts, truths)[name]
    assert scores[0] == pytest.approx(1, abs=1e-4) and -1 <= scores[1] < 0.999
