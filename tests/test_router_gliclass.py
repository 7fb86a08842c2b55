"""GLiClass inside the router: every trap of the library, training, the folder, the commands, on one small router."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gliclass")
import torch
from gliclass.loss_functions import focal_loss_with_logits
from transformers import BertConfig, BertModel

from medvl.cli import main
from medvl.instructions import GENERAL
from medvl.router.chain import Router, load_router
from medvl.router.data import LabelledQuestion
from medvl.router.evaluation import classifier_alone, evaluate, leave_one_dataset_out
from medvl.router.fitting import fit
from medvl.router.folder import RouterFolderError, check_replaceable, read_card
from medvl.router.gliclass import LONGEST, QuestionClassifier, bi_encoder_config, from_scratch, longest_input
from medvl.router.labels import LABELS
from medvl.router.options import TrainingOptions, read_options
from medvl.router.route import normalise
from medvl.router.training import TrainingError, _frozen_features, build, train
from medvl.router.wording import WordingClassifier
from medvl.router.written import held_out

QUESTIONS = [
    ("How many cells are there?", "counting"),
    ("Count the lesions.", "counting"),
    ("Give the bounding box of the lesion as [x_min, y_min, x_max, y_max].", "detection"),
    ("Is the heart enlarged? A: No, B: Yes", "classification"),
    ("Estimate the percentage of bone loss.", "regression"),
]
QUICK = TrainingOptions(epochs=1)
TOLERANCE = 1e-5


def question_file(folder: Path, dataset: str, rows: Sequence[tuple[str, str]] = QUESTIONS) -> Path:
    path = folder / "training" / "X" / dataset / f"{dataset}_questions_train.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{"TaskType": task, "Question": f"{text} {dataset}"} for text, task in rows]))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A router trained by the command for an epoch; treat it as read-only."""
    folder = tmp_path_factory.mktemp("router")
    question_file(folder / "tree", "alpha")
    question_file(folder / "tree", "beta", [(text.replace("the", "all"), task) for text, task in QUESTIONS])
    (folder / "recipe.yaml").write_text("epochs: 1\ntemplates: none\nwritten: false\n")
    command = ["router", "train", "--data", str(folder / "tree"), "--out", str(folder / "router")]
    command += ["--recipe", str(folder / "recipe.yaml"), "--json", str(folder / "report.json")]
    assert main(command) == 0
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def classifier(trained: Path) -> QuestionClassifier:
    stage = load_router(trained / "router").stage
    assert stage is not None
    return stage.classifier


def logits(classifier: QuestionClassifier, *texts: str, batch_size: int = 32) -> np.ndarray:
    return classifier.score(texts, batch_size)[0]


def untrained() -> QuestionClassifier:
    torch.manual_seed(0)
    return from_scratch([text for text, _ in QUESTIONS], LABELS)


def rows(*texts: str, task: str = "counting") -> list[LabelledQuestion]:
    return [LabelledQuestion(text, task, "d", text) for text in texts]


# --- the traps, in the order of the list ---------------------------------------------------------------------------


def test_trap_1_no_step_is_skipped_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    given = untrained()
    assert given.model.config.problem_type == "multi_label_classification"
    questions = [LabelledQuestion(text, task, "d", text) for text, task in QUESTIONS]
    result = train(given, questions, TrainingOptions(epochs=3, batch_size=2))
    assert result.steps == 3 * 4  # 8 rows: the four rarer tasks count twice
    monkeypatch.setattr(given.model.model, "get_loss", lambda logits, targets: logits.sum() * float("nan"))
    with pytest.raises(TrainingError, match=r"step 1 of 12: loss nan"):
        train(given, questions, TrainingOptions(epochs=3, batch_size=2))
    monkeypatch.setattr(given.model.model, "get_loss", lambda logits, targets: logits.sum() * 0 + 1)
    with pytest.raises(TrainingError, match="no gradient although the loss is 1"):
        train(given, questions, TrainingOptions(epochs=3, batch_size=2))


def test_labels_that_did_not_separate_are_an_error() -> None:
    """On the plateau every label scores its share of the questions, with a loss that looks fine."""
    given = untrained()
    with torch.no_grad():
        given.model.model.classes_projector.linear_2.weight.zero_()
        given.model.model.classes_projector.linear_2.bias.fill_(1.0)
    with pytest.raises(TrainingError, match="all labels have one embedding"):
        train(given, rows("Count."), TrainingOptions(epochs=1, learning_rate=1e-9))


def test_trap_2_focal_alpha_1_gives_negatives_no_gradient_and_is_refused() -> None:
    scores = torch.zeros(6, requires_grad=True)
    focal_loss_with_logits(scores, torch.zeros(6), alpha=1.0, gamma=1.0).sum().backward()
    assert scores.grad.abs().max() == 0, "the library has changed: the preset's warning is no longer true"
    with pytest.raises(ValueError, match="preset: mevlip"):
        read_options(None, focal_alpha=1.0)
    assert read_options(None, focal_alpha=1.0, preset="mevlip").focal_alpha == 1.0
    assert build(QUICK, ["a question"]).model.config.focal_loss_alpha == -1


def test_trap_3_scores_do_not_depend_on_the_batch(classifier: QuestionClassifier) -> None:
    texts = ["Count.", "word " * 90, "Is it normal? A: No, B: Yes", "Where is the lesion in this image of the chest?"]
    alone = np.concatenate([logits(classifier, text) for text in texts])
    together = logits(classifier, *texts)
    assert np.abs(alone - together).max() < TOLERANCE
    assert np.abs(alone - logits(classifier, *texts, batch_size=3)).max() < TOLERANCE
    batch = classifier.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        stock = classifier.model.model.encode_text(batch["input_ids"], batch["attention_mask"])
        ours = classifier.text_embeddings(classifier.features(texts))
    assert (stock[0] - ours[0]).abs().max() > 1e-3, "the library masks its pooling now"


def test_trap_4_texts_longer_than_the_positions(classifier: QuestionClassifier) -> None:
    assert np.isfinite(logits(classifier, "word " * 5000)).all()
    assert longest_input(BertConfig(max_position_embeddings=512)) == LONGEST
    assert longest_input(BertConfig(max_position_embeddings=64)) == 64
    roberta = type("Config", (), {"model_type": "roberta", "max_position_embeddings": 130})()
    assert longest_input(roberta) == 128


def test_trap_5_of_a_long_prompt_the_end_is_read(classifier: QuestionClassifier) -> None:
    question = "How many cells are there in this image?"
    one, other = (logits(classifier, f"{word} " * 600 + question) for word in ("history", "anamnesis"))
    ids = classifier.tokenizer(f"{'history ' * 600}{question}", truncation=True, max_length=classifier.max_length)[
        "input_ids"
    ]
    assert classifier.tokenizer.decode(ids, skip_special_tokens=True).endswith(
        "how many cells are there in this image?"
    )
    assert one.argmax() == logits(classifier, "history " * 100 + question).argmax()
    assert other.shape == one.shape
    assert load_router(None).route(["history " * 3000 + question])[0].task == "counting"


def test_trap_6_scores_do_not_depend_on_the_order_of_labels(classifier: QuestionClassifier) -> None:
    turned = QuestionClassifier(
        classifier.model, classifier.tokenizer, classifier.label_tokenizer, dict(reversed(LABELS.items()))
    )
    text = "Where is the lesion?"
    assert np.abs(logits(turned, text)[:, ::-1] - logits(classifier, text)).max() < TOLERANCE


def test_trap_7_special_tokens_of_the_library_are_no_text(trained: Path) -> None:
    plain, marked = "Tell about it, colleague.", "Tell <<LABEL>>about<<SEP>> it, <|im_end|>colleague.<<EXAMPLE>>"
    assert normalise(marked) == normalise(plain)
    router = load_router(trained / "router")
    assert router.route([marked]) == router.route([plain])


def test_trap_8_labels_of_different_lengths(classifier: QuestionClassifier) -> None:
    with torch.inference_mode():
        together = classifier.label_features()
        for place, (label, text) in enumerate(LABELS.items()):
            both = {label: text, "other": "x"}
            alone = QuestionClassifier(classifier.model, classifier.tokenizer, classifier.label_tokenizer, both)
            assert (alone.label_features()[0] - together[place]).abs().max() < TOLERANCE


def test_trap_9_labels_are_encoded_once(classifier: QuestionClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = QuestionClassifier(classifier.model, classifier.tokenizer, classifier.label_tokenizer, LABELS)
    calls: list[int] = []
    encode = fresh.label_features
    monkeypatch.setattr(fresh, "label_features", lambda: (calls.append(1), encode())[1])
    first = logits(fresh, *(text for text, _ in QUESTIONS), batch_size=2)
    second = logits(fresh, *(text for text, _ in QUESTIONS), batch_size=2)
    assert len(calls) == 1
    assert np.array_equal(first, second)
    fresh.forget_labels()
    assert np.array_equal(first, logits(fresh, *(text for text, _ in QUESTIONS), batch_size=2))
    assert len(calls) == 2


def test_trap_10_the_folder_can_be_moved(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [text for text, _ in QUESTIONS] + ["Tell about it, colleague."]
    before = load_router(trained / "router").route(questions)
    shutil.copytree(trained / "router", tmp_path / "elsewhere" / "moved")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert load_router("elsewhere/moved").route(questions) == before
    assert "HF_HUB_OFFLINE" not in os.environ
    written = "".join(path.read_text() for path in (trained / "router").rglob("*.json"))
    assert str(trained) not in written


@pytest.mark.parametrize("text", ["", "  ", None, 3])
def test_trap_11_texts_that_are_none(classifier: QuestionClassifier, text: Any) -> None:
    with pytest.raises(ValueError, match="empty or no text"):
        classifier.score([text])


@pytest.mark.parametrize("labels", [{}, {"one": "x"}, {"one": "x", "two": "x"}, {"one": "x", "two": ""}])
def test_trap_11_labels_that_are_none_or_equal(classifier: QuestionClassifier, labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="a text each"):
        QuestionClassifier(classifier.model, classifier.tokenizer, classifier.label_tokenizer, labels)


def test_trap_12_more_labels_than_the_library_says_it_takes(classifier: QuestionClassifier) -> None:
    many = {f"task {number}": f"label {number}" for number in range(40)}
    assert classifier.model.config.max_num_classes < len(many)
    given = QuestionClassifier(classifier.model, classifier.tokenizer, classifier.label_tokenizer, many)
    assert logits(given, "Count.").shape == (1, 40)


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.training
def test_training_learns_and_is_reproducible() -> None:
    questions = [LabelledQuestion(text, task, "d", text) for text, task in QUESTIONS] + rows(
        "hello there", task=GENERAL
    )
    options = TrainingOptions(epochs=15, batch_size=4, augment=False)
    results = []
    for _ in range(2):
        given = untrained()
        losses = train(given, questions, options).losses
        results.append(logits(given, *(row.text for row in questions)))
        assert losses[-1] < 0.2 * losses[0]
    assert np.array_equal(*results)
    tasks = list(LABELS)
    assert [tasks[place] for place in results[0].argmax(1)] == [row.task for row in questions]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained encoder, as far as loading goes: a tiny BERT with its tokenizer."""
    folder = tmp_path_factory.mktemp("encoders") / "tiny-bert"
    scratch = untrained()
    scratch.tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(scratch.tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("full", [False, True])
def test_a_pretrained_encoder_is_frozen_unless_full(encoder: Path, full: bool, tmp_path: Path) -> None:
    options = TrainingOptions(encoder=str(encoder), full=full, epochs=2)
    given = build(options, [])
    parts = {"encoder": given.model.model.encoder_model, "head": given.model.model.text_projector}
    before = {name: [weights.clone() for weights in part.parameters()] for name, part in parts.items()}
    train(given, [LabelledQuestion(text, task, "d", text) for text, task in QUESTIONS], options)
    changed = {
        name: any(not torch.equal(old, new) for old, new in zip(before[name], part.parameters(), strict=True))
        for name, part in parts.items()
    }
    assert changed == {"encoder": full, "head": True}
    given.save(tmp_path / "saved")
    again = QuestionClassifier.load(tmp_path / "saved", LABELS)
    assert np.abs(logits(given, "Count.") - logits(again, "Count.")).max() < TOLERANCE
    assert str(encoder) not in (tmp_path / "saved" / "config.json").read_text()


def test_another_architecture_is_refused(classifier: QuestionClassifier) -> None:
    config = bi_encoder_config(classifier.model.config.encoder_config, classifier.model.config.encoder_config)
    config.architecture_type = "uni-encoder"
    model = type("Model", (), {"config": config})()
    with pytest.raises(ValueError, match="bi-encoder, not uni-encoder"):
        QuestionClassifier(model, classifier.tokenizer, classifier.label_tokenizer, LABELS)  # type: ignore[arg-type]


# --- the folder ----------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "router", tmp_path / "router"))


def test_the_card_says_what_was_trained_on_what(trained: Path) -> None:
    card = read_card(trained / "router")
    assert [task for task, _ in card.labels] == list(LABELS)
    assert set(card.thresholds) == set(LABELS)
    assert len(card.data.files) == 2
    assert card.data.tasks[GENERAL]["synthetic"] > 100
    assert {"gliclass", "transformers", "torch"} <= set(card.versions)
    parts = {"model.safetensors", "similarity.safetensors", "words.safetensors", "config.json"}
    assert parts | {"label_tokenizer/tokenizer.json"} <= set(card.files)
    assert card.metrics["steps"] > 0
    assert card.options["focal_alpha"] == -1


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "router.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_stale_or_damaged_folder_is_refused(copied: Path) -> None:
    labels = [list(item) for item in LABELS.items()]
    edit(copied, labels=labels[::-1])
    with pytest.raises(RouterFolderError, match="another order; train the router again"):
        load_router(copied)
    edit(copied, labels=labels[:-1])
    with pytest.raises(RouterFolderError, match="this version routes to"):
        load_router(copied)
    edit(copied, labels=labels, thresholds={})
    with pytest.raises(RouterFolderError, match="calibrate it again"):
        load_router(copied)
    card = json.loads((copied / "router.json").read_text())
    card["thresholds"] = dict.fromkeys(LABELS, 0.5)
    card["files"]["wording.safetensors"] = card["files"].pop("words.safetensors")
    (copied / "router.json").write_text(json.dumps(card))
    with pytest.raises(RouterFolderError, match=r"without words\.safetensors; train the router again"):
        load_router(copied)
    del card["alone"]  # as a router of an earlier version
    for damaged in (json.dumps(card), "{"):
        (copied / "router.json").write_text(damaged)
        with pytest.raises(RouterFolderError, match="train the router again"):
            load_router(copied)


def test_changed_or_missing_files_are_refused(copied: Path) -> None:
    (copied / "config.json").write_text((copied / "config.json").read_text() + " ")
    with pytest.raises(RouterFolderError, match=r"config\.json: changed"):
        load_router(copied)
    (copied / "config.json").unlink()
    with pytest.raises(RouterFolderError, match=r"config\.json: is missing"):
        load_router(copied)


def test_only_a_router_is_replaced(tmp_path: Path, copied: Path) -> None:
    check_replaceable(copied)
    check_replaceable(tmp_path / "absent")
    (tmp_path / "thesis").mkdir()
    check_replaceable(tmp_path / "thesis")
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(RouterFolderError, match="something else than a router"):
        check_replaceable(tmp_path / "thesis")


def test_the_fingerprint_is_of_what_decides(copied: Path) -> None:
    before = load_router(copied).fingerprint
    edit(copied, metrics={})
    assert load_router(copied).fingerprint == before
    for changed in ({"temperature": 3.0}, {"alone": 0.5}, {"alone_temperature": 2.0}):
        edit(copied, **changed)
        fingerprint = load_router(copied).fingerprint
        assert fingerprint not in (before, Router().fingerprint)
        before = fingerprint


# --- evaluation ----------------------------------------------------------------------------------------------------


def test_evaluation_counts(trained: Path) -> None:
    router = load_router(None)
    asked = [*QUESTIONS, ("Hello there", GENERAL), ("Count the cells.", "regression"), ("Hm.", "detection")]
    found = evaluate(router, asked)
    assert found.questions == 8
    assert found.accuracy == pytest.approx(6 / 8)
    assert found.wrong == pytest.approx(1 / 8)
    assert found.abstained == pytest.approx(1 / 7)
    assert found.confusion["regression"] == {"regression": 1, "counting": 1}
    assert found.confusion[GENERAL] == {GENERAL: 1}
    assert found.mistakes == [("Count the cells.", "regression", "counting"), ("Hm.", "detection", GENERAL)]
    assert (found.curve[0].coverage, found.curve[0].accuracy) == (pytest.approx(6 / 7), pytest.approx(5 / 6))
    assert (found.curve[-1].coverage, found.curve[-1].accuracy) == (0.0, None)
    assert found.sources == {"rules": 6, "none": 2}


def test_leave_one_dataset_out_trains_without_its_wordings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def recorded(questions: Sequence[LabelledQuestion], options: TrainingOptions, *, device: str) -> Any:
        seen.append({question.text for question in questions})
        return type("Fitted", (), {"router": Router()})()

    monkeypatch.setattr("medvl.router.fitting.fit", recorded)
    monkeypatch.setattr("medvl.router.evaluation.classifier_alone", lambda router, texts: ["counting"] * len(texts))
    questions = [
        LabelledQuestion("Count the cells.", "counting", "a", "1"),
        LabelledQuestion("Count the cells.", "counting", "b", "1"),
        LabelledQuestion("Where is the lesion?", "detection", "b", "2"),
        LabelledQuestion("Describe the lungs.", "report_generation", "c", "3"),
    ]
    folds = list(leave_one_dataset_out(questions, QUICK))
    assert seen == [
        {"Where is the lesion?", "Describe the lungs."},
        {"Describe the lungs."},
        {"Count the cells.", "Where is the lesion?"},
    ]
    assert [(fold.dataset, fold.questions, fold.rules, fold.gliclass, fold.chain) for fold in folds] == [
        ("a", 1, 1.0, 1.0, 1.0), ("b", 2, 1.0, 0.5, 1.0), ("c", 1, 1.0, 0.0, 1.0),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="needs two datasets"):
        list(leave_one_dataset_out(questions[:1], QUICK))


def test_the_classifier_alone_needs_one(trained: Path) -> None:
    assert set(classifier_alone(load_router(trained / "router"), ["Count.", "Where?"])) <= set(LABELS)
    with pytest.raises(ValueError, match="rules alone"):
        classifier_alone(load_router(None), ["Count."])


@pytest.mark.training
def test_without_held_out_questions_nothing_is_trained() -> None:
    with pytest.raises(ValueError, match="no held-out question"):
        fit(rows("one question"), TrainingOptions(epochs=1, templates="none", written=False))


# --- commands ------------------------------------------------------------------------------------------------------


def test_train_reports_what_is_synthetic(trained: Path) -> None:
    report = json.loads((trained / "report.json").read_text())
    assert report["rows"] == 10
    assert report["tasks"]["counting"]["questions"] - report["tasks"]["counting"]["synthetic"] == 4
    assert report["tasks"][GENERAL]["synthetic"] > 100


@pytest.fixture
def no_veto(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch on ten questions leaves a classifier that objects to every rule."""
    monkeypatch.setattr("medvl.router.chain.VOUCHED", 0.0)


def test_hidden_tokens_are_read_as_unknown_ones() -> None:
    given = untrained()
    text = "Count the lesions."
    unknown = " ".join([given.tokenizer.unk_token] * (len(given.tokenizer(text)["input_ids"]) - 2))
    with torch.no_grad():
        expected = given.features([unknown])
        assert torch.allclose(given.features([text], hidden=1.0), expected, atol=TOLERANCE)
        assert not torch.allclose(given.features([text]), expected, atol=TOLERANCE)


def test_features_of_a_frozen_encoder_come_in_the_order_of_the_questions() -> None:
    given = untrained()
    texts = [
        "Count every single one of the lesions.",
        "Where?",
        *(f"How many {'cells ' * n}?" for n in range(70, 0, -1)),
    ]
    found = _frozen_features(given, texts)
    for place in (0, 1, 2, 40, 71):
        with torch.no_grad():
            assert torch.allclose(found[place], given.features([texts[place]])[0], atol=TOLERANCE)


@pytest.mark.usefixtures("no_veto")
def test_route(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        {"question": "How many cells are there?", "TaskType": "detection"},
        {"question": ""},
        {"question": "Is it normal? A: no B: yes", "task": "Regression", "id": 7},
    ]
    file, out = tmp_path / "q.jsonl", tmp_path / "r.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in asked))
    command = ["router", "route", str(file), "--router", str(trained / "router"), "--out", str(out)]
    assert main(command) == 0
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["task"] for line in found] == ["counting", GENERAL, "classification"]
    assert found[1]["source"] == "none"
    assert [set(line) for line in found] == [{"task", "confidence", "source"}] * 3
    assert main([*command, "--trust-metadata"]) == 0
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["task"] for line in found] == ["detection", GENERAL, "regression"]
    capsys.readouterr()
    assert main(["router", "route", str(file), "--explain"]) == 0  # rules alone, to stdout
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["reason"] == "how many"


def test_calibrate_changes_the_card(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = tmp_path / "q.jsonl"
    asked = [*QUESTIONS, ("Hello there, how are you?", GENERAL)]
    questions.write_text("".join(json.dumps({"question": text, "task": task}) + "\n" for text, task in asked))
    before = read_card(copied)
    assert main(["router", "calibrate", "--router", str(copied), "--questions", str(questions)]) == 0
    after = read_card(copied)
    assert after.metrics["held_out"] == len(asked)
    assert after.temperature != before.temperature
    assert after.files == before.files
    assert "temperature" in capsys.readouterr().out


@pytest.mark.usefixtures("no_veto")
def test_evaluate_prints_and_writes(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path(__file__).parent / "data"
    command = ["router", "evaluate", "--router", str(trained / "router"), "--data", str(trained / "tree"),
               "--paraphrases", str(data / "router_paraphrases.jsonl"),
               "--out-of-domain", str(data / "router_out_of_domain.jsonl"),
               "--held-out", "--json", str(tmp_path / "e.json")]  # fmt: skip
    assert main(command) == 0
    report = json.loads((tmp_path / "e.json").read_text())
    assert report["sets"]["paraphrases"]["accuracy"] >= 0.9
    assert report["sets"]["out of domain"]["accuracy"] >= 11 / 12
    assert report["sets"]["data"]["confusion"]["counting"] == {"counting": 4}
    found = report["sets"]["held-out professions"]
    assert found["questions"] == len(held_out())
    assert 0 < found["tasks_right"] < 1 - found["tasks_wrong"]
    assert found["kept_out"] > 0.8
    printed = capsys.readouterr().out
    assert "Coverage and accuracy" in printed
    assert "of prompts that are none" in printed
    assert "out of domain" in printed


MEVLIP = str(Path(__file__).parents[1] / "recipes" / "router" / "gliclass_mevlip.yaml")
REFUSED = [
    (["route", "{tmp}/absent.jsonl"], 3, "absent.jsonl"),
    (["route", "{tmp}/bad.jsonl", "--out", "{tmp}/out.jsonl"], 3, "bad.jsonl:2: no question"),
    (["route", "{tmp}/good.jsonl", "--router", "{tmp}"], 3, "router.json is missing"),
    (["train", "--data", "{tmp}/absent", "--out", "{tmp}/r"], 3, "no such file or folder"),
    (["train", "--data", "{tmp}/absent", "--out", "{tmp}/r", "--recipe", MEVLIP], 3, "gives negatives no gradient"),
    (["route", "{tmp}/good.jsonl", "--out", "{tmp}/./good.jsonl"], 2, "would be overwritten; choose another"),
    (["train", "--data", "{tmp}", "--out", "{tmp}"], 3, "something else than a router"),
    (["train", "--data", "{tmp}", "--out", "{tmp}/r", "--recipe", "{tmp}/r.yaml"], 2, "unknown key 'alpha'"),
    (["train", "--data", "{tmp}", "--out", "{tmp}/r", "--epochs", "0"], 2, "expected more than 0"),
    (["train", "--out", "{tmp}/r", "--no-written"], 2, "nothing to train on: give --data"),
    (["evaluate"], 2, "evaluate needs"),
    (["evaluate", "--lodo"], 2, "--lodo needs --data"),
    (["calibrate", "--router", "{tmp}"], 2, "calibrate needs"),
]


@pytest.mark.parametrize(("command", "code", "said"), REFUSED)
def test_refusals_say_why(
    command: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.jsonl").write_text('{"question": "a"}\n')
    (tmp_path / "bad.jsonl").write_text('{"question": "a"}\n{"text": "b"}\n')
    (tmp_path / "r.yaml").write_text("alpha: 1\n")
    assert main(["router", *(part.format(tmp=tmp_path) for part in command)]) == code
    assert said in capsys.readouterr().err
    assert (tmp_path / "good.jsonl").read_text() == '{"question": "a"}\n'
    assert not (tmp_path / "out.jsonl").exists()
    assert not (tmp_path / "r").exists()


def test_a_failure_shows_in_the_exit_code(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in (QuestionClassifier, WordingClassifier):
        monkeypatch.setattr(part, "score", lambda *args: (_ for _ in ()).throw(RuntimeError("boom")))
    file, out = tmp_path / "q.jsonl", tmp_path / "r.jsonl"
    file.write_text('{"question": "Tell about it, colleague."}\n{"question": "How many cells?"}\n')
    assert main(["router", "route", str(file), "--router", str(trained / "router"), "--out", str(out)]) == 4
    assert [json.loads(line)["task"] for line in out.read_text().splitlines()] == [GENERAL, "counting"]
