"""Scoring of fetal ultrasound answers: each question's measure, and what was once scored wrongly elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import balanced_accuracy_score

from evaluation.metrics.ultrasound_answers import keyword, label, measurements, score_answer, sections, tier
from evaluation.parsing import make_samples
from evaluation.run import main
from evaluation.samples import Joined, Prediction, Reference
from evaluation.scores import Resampling
from evaluation.scoring import score
from medvl.errors import DataError
from medvl.sources.ultrasound_labels import QUESTIONS, facts
from medvl.tasks import Task, canonical_task

ERROR = "Error: CUDA out of memory. Tried to allocate 2.00 GiB"
REPORT = "\n\n".join(
    f"## {facts()['questions'][question]['section']}\n{answer}"
    for question, answer in zip(
        QUESTIONS,
        ["aorta, liver", "Fetal head to right", "Sagittal", "AC", "20-25 weeks", "Good image quality",
         "Abnormal NT thickening", "Not stated."],
        strict=True,
    )
)  # fmt: skip


def task_of(dataset: str) -> Task:
    if dataset == "report":
        return Task.REPORT
    return canonical_task(facts()["questions"][dataset[:2]]["task"])


def scores(
    cases: list[tuple[str, str | None]], dataset: str = "q7", *, questions: list[str] | None = None, draws: int = 0
) -> dict[str, Any]:
    """Metrics of one dataset; each case is a reference and a prediction, images in order or, with questions, one."""
    task, pairs = task_of(dataset), []
    for row, (truth, said) in enumerate(cases):
        asked = questions[row] if questions else "?"
        image = "one.png" if questions else f"{row}.png"
        reference = Reference(str(row), task, dataset, asked, (image,), truth, None, lambda: None, row)
        pairs.append((reference, Prediction(row, said)))
    made = score(make_samples(Joined("key", pairs), None), "fada", Resampling(draws))[task]
    return {name: entry["value"] for name, entry in made.datasets[dataset].items()}


# Question -> (reference, answer, score).
CASES: dict[str, list[tuple[str, str, float]]] = {
    "q1": [
        ("aorta, liver", "liver, aorta", 1),
        ("aorta, inferior vena cava", "aorta, IVC", 1),  # synonyms
        ("fetal skull, thalami", "- Skull\n- Thalamus", 1),  # a list in Markdown
        ("aorta, liver, stomach, spleen", "aorta", 5 * 0.25 / (4 + 0.25)),  # precision 1, recall 1/4
        ("aorta", "aorta, liver, stomach, spleen", 5 * 0.25 / (4 * 0.25 + 1)),  # precision 1/4, recall 1
        ("fetal head", "fetal skull", 0),  # both are skulls, but not the same group
        ("aorta", "Anatomical Structures: aorta", 1),
        ("aorta", "femur", 0),
    ],
    "q2": [
        ("Fetal head to right", "fetal head to the rght side of the screen", 1),  # canonical words
        ("Cephalic, occiput to right", "Cephalic presentation", 0.5),
        ("Breech presentation", "Cephalic presentation", 0),
        ("Fetal head to right", "Fetal head to left", 0),
        ("Axial upper abdomen", "Axial mid abdomen", 0),  # neither has a keyword, and that is not the same
    ],
    "q3": [
        ("Trans-thalamic view", "This is the transthalamic plane", 0.5),
        ("Mid-sagittal", "Para-sagittal view of head and neck", 0),
        ("Sagittal", "Plane Evaluation: Sagittal", 1),  # the question's heading is no answer
        ("Coronal", "Axial", 0),
    ],
    "q4": [
        ("CRL and NT", "crown-rump length and nuchal translucency", 1),
        ("BPD and HC", "HC", 2 / 3),
        ("NT not measurable (not mid-sagittal)", "NT thickness", 2 / 3),
        ("Cardiac chamber dimensions", ERROR, 0),
        ("Something else", "Another thing", 0),  # no keyword on either side
        ("Something else", "something else", 1),
    ],
    "q5": [
        ("20-25 weeks", "The gestational age is about 22 weeks", 1),  # not at the start
        ("20-25 weeks", "25-30 weeks", 0.5),
        ("20-25 weeks", "30-35 weeks", 0),
        ("20-25 weeks", "second trimester", 0),
    ],
    "q6": [
        ("Good image quality", "The quality is good.", 1),
        ("Good image quality", "acceptable", 0.5),
        ("Good image quality", "Poor, with shadowing", 0),
        ("Low image quality", "not good, marked acoustic shadowing", 1),
        ("Bad quality of image Use probe with high penetration power", "Low image quality", 1),
        ("posterior acoustic shadowing", "Good image quality", 0),  # the reference has no tier
    ],
    "q7": [
        ("Normal for gestational age", "normal for the age", 1),
        ("Normal for gestational age", "Within normal limits", 0.5),
        ("Normal for gestational age", "Abnormal VSD", 0),
        ("Abnormal NT thickening", "Abnormal VSD", 0.5),
        ("abnormal", "Abnormal NT thickening", 1),  # a bare label is all that is asked for
        ("normal", "ABNORMAL", 0),
        ("unclear", ERROR, 0),
        ("unclear", "UNCLEAR", 1),
    ],
    "q8": [("Prenatal routine monitoring", "prenatal routine monitroing", 1), ("Follow up", "Nothing", 0)],
}


@pytest.mark.parametrize(
    ("question", "truth", "said", "expected"),
    [(question, *case) for question, cases in CASES.items() for case in cases],
)
def test_every_question_has_its_measure(question: Any, truth: str, said: str, expected: float) -> None:
    assert score_answer(question, said, truth).score == pytest.approx(expected)
    assert score_answer(question, "", truth).score == 0
    assert scores([(truth, said)], question)["question_score"] == pytest.approx(0 if said == ERROR else expected)


def test_recommendations_are_compared_by_rouge_l() -> None:
    truth, said = "Follow up after 1 month with a complete anomaly scan", "Complete scan, follow up after two weeks"
    assert score_answer("q8", said, truth).score == RougeScorer(["rougeL"]).score(truth, said)["rougeL"].fmeasure


def test_words_that_decide() -> None:
    assert keyword("plane", "Transverse 4-chamber heart view") == "4-chamber"
    assert measurements("Is it the NT?") == {"NT"} and measurements("FMF angle, IT") == {"FMF", "IT"}
    assert [tier(text) for text in ("excellent", "moderate", "suboptimal", "")] == ["good", "medium", "low", None]
    assert label("I am sorry, I cannot help with that") is None


MIXED = [("normal", "Normal"), ("normal", "abnormal"), ("abnormal", "Abnormal NT thickening"), ("abnormal", "normal"),
         ("normal", "normal."), ("normal", "Within normal limits")]  # fmt: skip


def test_balanced_accuracy_is_sklearns() -> None:
    found = scores(MIXED)
    oracle = balanced_accuracy_score([truth for truth, _ in MIXED], [label(said) for _, said in MIXED])
    assert found["balanced_accuracy"] == pytest.approx(oracle)
    assert (found["sensitivity"], found["specificity"], found["coverage"]) == (0.5, 0.75, 1)
    counts = ("true_positives", "false_negatives", "true_negatives", "false_positives")
    assert [found[name] for name in counts] == [1, 1, 3, 1]


@pytest.mark.parametrize("answer", ["normal", "Normal for gestational age", "abnormal"])
def test_always_the_same_answer_has_a_balanced_accuracy_of_one_half(answer: str) -> None:
    found = scores([("normal", answer)] * 98 + [("abnormal", answer)] * 2, draws=20)
    assert found["balanced_accuracy"] == 0.5


@pytest.mark.parametrize("answer", [ERROR, "", None, "Traceback (most recent call last):", "unclear", "???"])
def test_what_is_no_answer_is_worse_than_always_the_same(answer: str | None) -> None:
    found = scores([("normal", answer)] * 9 + [("abnormal", answer)])
    assert found["balanced_accuracy"] == found["sensitivity"] == found["coverage"] == found["question_score"] == 0


def test_unclear_references_are_in_neither_rate() -> None:
    found = scores([("unclear", "normal"), ("normal", "normal"), ("abnormal", "abnormal")])
    assert found["balanced_accuracy"] == 1 and found["question_score"] == pytest.approx(2 / 3)
    assert scores([("normal", "normal")])["sensitivity"] is None


def test_a_report_is_scored_by_its_sections() -> None:
    whole = scores([(REPORT, REPORT)], "report")
    assert whole["question_score"] == whole["section_completeness"] == whole["complete_reports"] == 1
    assert whole["balanced_accuracy"] is None and whole["sensitivity"] == 1
    assert whole["q8_clinical_recommendations"] is None  # the reference has none
    half = REPORT.partition("## Gestational Age")[0].replace("Sagittal", "Coronal")
    found = scores([(REPORT, half)], "report")
    assert (found["section_completeness"], found["complete_reports"], found["sensitivity"]) == (0.5, 0, 0)
    assert found["question_score"] == pytest.approx(3 / 7)
    assert (found["q3_imaging_plane"], found["q4_biometric_measurements"], found["q6_image_quality"]) == (0, 1, 0)
    assert scores([(REPORT, ERROR)], "report")["question_score"] == 0


def test_sections_are_found_in_any_markdown() -> None:
    text = (
        "# 1. **Image Quality**: Good\n**Gestational Age**\n20 weeks\n\nFetal Orientation: Breech\n## Imaging Plane\n\n"
    )
    assert sections(text) == {"q6": "Good", "q5": "20 weeks", "q2": "Breech"}
    assert sections("The image quality is good.") == {}


def test_prompt_variants_are_compared_for_form_and_consistency() -> None:
    asked = list(facts()["prompts"].values())
    said = ["Normal for gestational age", "It is normal", "abnormal finding", "NORMAL"]
    found = scores([("normal", answer) for answer in said], questions=asked)
    assert found["consistency"] == pytest.approx(6 / 12) and found["format_compliance"] == 1
    said = ["", "Hello", "normal", "It is NORMAL because nothing is seen"]
    found = scores([("normal", answer) for answer in said], questions=asked)
    assert found["format_compliance"] == 1 / 4 and found["consistency"] == pytest.approx(2 / 12)
    assert scores([("normal", "normal")])["consistency"] is None


def test_several_questions_have_no_common_score() -> None:
    pairs = [
        (
            Reference(name, Task.VQA, name, "?", (name,), "Sagittal", None, lambda: None, row),
            Prediction(row, "Sagittal"),
        )
        for row, name in enumerate(("q2", "q3"))
    ]
    made = score(make_samples(Joined("key", pairs), None), "fada")[Task.VQA]
    assert (
        made.pooled["question_score"]["value"] is None
        and "several questions" in made.pooled["question_score"]["reason"]
    )
    assert made.datasets["q3"]["question_score"]["value"] == 1


def test_other_data_is_refused() -> None:
    reference = Reference("0", Task.VQA, "slake", "?", ("a",), "yes", None, lambda: None, 0)
    with pytest.raises(DataError, match="scores fetal ultrasound"):
        score(make_samples(Joined("key", [(reference, Prediction(0, "yes"))]), None), "fada")


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels beside verbatim answers. Right answers that are nearly all the same are no broken run; all the same, or
    error messages, are."""
    asked = {"from": "human", "value": "<image>\nIs this ultrasound normal?"}
    truths = ["normal"] * 98 + ["abnormal"] * 2
    records = [
        {"id": f"u/{row}", "task": "classification", "dataset": "q7", "images": [f"{row}.png"],
         "conversations": [asked, {"from": "gpt", "value": truth}],
         "source": {"split": "test", "file": "t.csv", "index": row, "sizes": [[4, 4]], "answer": "Normal closed cervix",
                    "reference": truth}}
        for row, truth in enumerate(truths)
    ]  # fmt: skip
    (tmp_path / "q7.json").write_text(json.dumps(records))
    said = {
        "right": truths,
        "nearly": ["normal"] * 99 + ["abnormal"],
        "same": ["normal"] * 100,
        "errors": [ERROR] * 100,
    }
    for name, answers in said.items():
        rows = [
            json.dumps({"id": record["id"], "prediction": answer})
            for record, answer in zip(records, answers, strict=True)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))

    def run(name: str, *more: str) -> int:
        words = ["--references", str(tmp_path / "q7.json"), "--rules", "fada,strict", "--bootstrap", "0", "--no-page"]
        return main([str(tmp_path / f"{name}.jsonl"), *words, "--out", str(tmp_path / name), *more])

    assert (run("right"), run("nearly"), run("same"), run("errors")) == (0, 0, 3, 3)
    assert "error messages" in capsys.readouterr().err
    assert run("same", "--force") == 0
    values = {}
    for name in ("right", "nearly", "same"):
        found = json.loads((tmp_path / name / "metrics.json").read_text())["datasets"]["q7"]["classification"]
        values[name] = found["balanced_accuracy"]["value"], found["sensitivity"]["value"]
    assert values == {"right": (1, 1), "nearly": (0.75, 0.5), "same": (0.5, 0)}
