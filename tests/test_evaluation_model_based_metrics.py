"""Report metrics by models: a recorded judge is parsed and added up; radeval is asked for, never assumed."""

import json
import sys
import types
from pathlib import Path

import pytest

from evaluation.model_based_metrics import GreenErrors, parse_errors
from evaluation.run import main
from tests.support.scored_tree import build_tree, score, write_json

# As the judge of GREEN writes: three sections, six kinds of error, findings behind a number.
ERRORS = "(a) False report of a finding in the candidate: {a}\n(b) Missing a finding present in the reference: {b}"
INSIGNIFICANT = "[Clinically Insignificant Errors]:\n(a) False report of a finding in the candidate: 7. spondylosis"
RESPONSES = {
    "findings and errors": (
        f"[Explanation]:\nTwo agree (1) and (2).\n\n[Clinically Significant Errors]:\n"
        f"{ERRORS.format(a='1. Pneumothorax', b='2. Effusion; Edema')}\n\n{INSIGNIFICANT}\n\n"
        "[Matched Findings]:\n3. Heart size; mediastinum; bones", GreenErrors(3, 3)),
    "no errors": ("[Clinically Significant Errors]:\nNo errors\n\n[Matched Findings]:\n2. a; b", GreenErrors(2, 0)),
    "nothing matched": (
        f"[Clinically Significant Errors]:\n{ERRORS.format(a=0, b='1. Effusion')}\n\n[Matched Findings]:\n"
        "No matched findings", GreenErrors(0, 1)),
    "two normal reports": (
        "[Clinically Significant Errors]:\nNone\n\n[Matched Findings]:\nNo findings", GreenErrors(0, 0)),
    "counts of zero": (
        f"[Clinically Significant Errors]:\n{ERRORS.format(a='0.', b='0.')}\n\n[Matched Findings]:\n1. Heart size",
        GreenErrors(1, 0)),
    "cut off before the matches": (f"[Clinically Significant Errors]:\n{ERRORS.format(a='1. x', b='0.')}", None),
    "prose": ("The candidate is mostly right.", None),
    "empty": ("", None),
    "a section that says nothing": ("[Clinically Significant Errors]:\n\n[Matched Findings]:\n2. a; b", None),
}  # fmt: skip


@pytest.mark.parametrize(("response", "expected"), RESPONSES.values(), ids=RESPONSES)
def test_recorded_response(response: str, expected: GreenErrors | None) -> None:
    assert parse_errors(response) == expected


@pytest.mark.parametrize(("errors", "green"), [
    (GreenErrors(3, 1), 0.75), (GreenErrors(2, 0), 1.0), (GreenErrors(0, 4), 0.0), (GreenErrors(0, 0), 0.0),
])  # fmt: skip
def test_green_of_counts(errors: GreenErrors, green: float) -> None:
    assert errors.green == green


def reports(tmp_path: Path) -> tuple[Path, Path, list[str]]:
    """References, predictions with one answer missing, and the ids of the two reports."""
    rows = [row for row in build_tree(tmp_path / "tree") if row["TaskType"] == "report_generation"]
    folder = tmp_path / "tree/validation-public/Xray/IU_XRay"
    ids = [f"flare/validation-public/Xray/IU_XRay/{index:06d}" for index in range(2)]
    return folder, write_json(tmp_path / "said.json", [rows[0] | {"Answer": "Heart is large."}, rows[1]]), ids


def transcript(path: Path, responses: dict[str, str]) -> Path:
    path.write_text("\n".join(json.dumps({"id": name, "response": text}) for name, text in responses.items()))
    return path


def test_a_transcript_gives_green_under_both_rules(tmp_path: Path) -> None:
    references, said, ids = reports(tmp_path)
    texts = [RESPONSES["findings and errors"][0], RESPONSES["no errors"][0]]
    apply = transcript(tmp_path / "judge.jsonl", dict(zip(ids, texts, strict=True)))
    metrics = score(said, references, tmp_path / "out", "--rules", "strict,official", "--green-transcript", str(apply))
    assert metrics["tasks"]["report_generation"]["green"]["value"] == 0.75
    assert metrics["other_rules"]["official"]["tasks"]["report_generation"]["green_score"]["value"] == 0.75
    assert metrics["provenance"]["green_transcript"] == str(apply)


def test_a_response_nobody_can_parse_is_in_no_mean(tmp_path: Path) -> None:
    references, said, ids = reports(tmp_path)
    apply = transcript(tmp_path / "judge.jsonl", {ids[0]: "I cannot say.", ids[1]: RESPONSES["no errors"][0]})
    metrics = score(said, references, tmp_path / "out", "--green-transcript", str(apply))
    assert metrics["tasks"]["report_generation"]["green"]["value"] == 1.0


def test_a_transcript_must_hold_every_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references, said, ids = reports(tmp_path)
    apply = transcript(tmp_path / "judge.jsonl", {ids[0]: RESPONSES["no errors"][0]})
    assert main([str(said), "--references", str(references), "--green-transcript", str(apply)]) == 3
    assert f"1 reports lack a response, first {ids[1]}" in capsys.readouterr().err


def test_a_transcript_belongs_to_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references, said, _ = reports(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main([str(said), "--references", str(references), "--green-transcript", "judge.jsonl", "--baseline", str(said)])
    assert stopped.value.code == 2 and "score the files one by one" in capsys.readouterr().err


def test_without_the_extra_the_message_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "radeval", None)
    references, said, _ = reports(tmp_path)
    assert main([str(said), "--references", str(references), "--report-metrics", "green", "radgraph_f1"]) == 2
    error = capsys.readouterr().err
    assert "green, radgraph_f1: needs the package radeval" in error and "'.[radiology]'" in error


def test_radeval_is_asked_per_sample_and_an_invalid_answer_is_worth_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    class RadEval:
        def __init__(self, **options: object) -> None:
            asked.update(options)

        def __call__(self, refs: list[str], hyps: list[str]) -> dict[str, list[float | None]]:
            asked.update(refs=refs, hyps=hyps)
            return {"bertscore": [0.9] * len(refs), "radgraph_partial": [None] * len(refs)}

    monkeypatch.setitem(sys.modules, "radeval", types.SimpleNamespace(RadEval=RadEval))
    references, said, _ = reports(tmp_path)
    rows = json.loads(said.read_text())
    write_json(said, [rows[0], rows[1] | {"Answer": ""}])
    options = ("--report-metrics", "bertscore", "radgraph_f1", "--force")
    entries = score(said, references, tmp_path / "out", *options)["tasks"]["report_generation"]
    assert asked == {"metrics": ["bertscore", "radgraph"], "per_sample": True, "show_progress": False,
                     "refs": ["Heart size is normal."], "hyps": ["Heart is large."]}  # fmt: skip
    assert entries["bertscore"]["value"] == pytest.approx(0.45)
    assert entries["radgraph_f1"]["value"] == 0.0  # of the two only the invalid one has a score
