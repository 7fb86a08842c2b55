"""How often training records are seen, and what LLaMA-Factory makes of `num_samples`."""

import json
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from medvl.errors import DataError
from medvl.sharegpt import Record, Source, make_record, read_records
from medvl.tasks import Task
from preprocess.flare import main
from preprocess.resampling import resample, views
from preprocess.results import Entry, Groups
from preprocess.sampling import OversamplingSource, Sampling

QUESTION = "Which? A: benign, B: malignant, C: none"


def record(number: int, answer: str = "A", *, dataset: str = "BUSI", task: str = "classification", image_count: int = 1,
           question: str = QUESTION) -> Record:  # fmt: skip
    sizes = [(10 + place, 20) for place in range(image_count)]
    source = Source(split="training", file="q.json", index=number, sizes=sizes, answer=answer)
    images = [f"{dataset}-{number}-{place}.png" for place in range(image_count)]
    return make_record(question=question, answer=answer, images=images, id=f"{dataset}/{number}", task=task,
                       dataset=dataset, source=source)  # fmt: skip


def groups(*records: Record, split: str = "train") -> Groups:
    made: Groups = {}
    for item in records:
        for entry in (
            Entry("dataset", item.dataset, split),
            Entry("task", item.task, split),
            Entry("all", "all", split),
        ):
            made.setdefault(entry, []).append(item)
    return made


def sampling(**changes: Any) -> Sampling:
    return Sampling(**({"rates": {}, "balance": None, "oversampling": (), "flatten": False, "seed": 0} | changes))


def answers(records: list[Record]) -> Counter[str]:
    return Counter(item.target for item in records)


ALL = Entry("all", "all", "train")
BUSI = Entry("dataset", "BUSI", "train")


class TestRates:
    records = [record(number) for number in range(10)] + [record(number, dataset="endo") for number in range(4)]

    @pytest.mark.parametrize(("rate", "count"), [(0.5, 2), (1.0, 4), (2.5, 10), (4.0, 16)])
    def test_entries_of_several_hold_as_many_and_the_datasets_own_has_num_samples(
        self, rate: float, count: int
    ) -> None:
        made, samples, _ = resample(groups(*self.records), sampling(rates={"endo": rate}), ["train"])
        seen = Counter(item.id.partition("#")[0] for item in made[ALL] if item.dataset == "endo")
        assert sum(seen.values()) == count
        assert max(seen.values()) == math.ceil(rate)
        assert sum(item.dataset == "BUSI" for item in made[ALL]) == 10
        own = Entry("dataset", "endo", "train")
        assert (len(made[own]), samples) == (4, {own: count})

    def test_copies_have_ids_of_their_own(self) -> None:
        made, _, lines = resample(groups(*self.records), sampling(rates={"endo": 3.0}), ["train"])
        assert len({item.id for item in made[ALL]}) == len(made[ALL]) == 22
        assert "endo/0#copy3" in {item.id for item in made[ALL]}
        assert dict(lines)[ALL] == {"records": 22, "rows": 14, "copies": 8, "num_samples": None}

    def test_the_seed_decides(self) -> None:
        drawn = [
            [
                item.id
                for item in resample(groups(*self.records), sampling(rates={"BUSI": 0.5}, seed=seed), ["train"])[0][ALL]
            ]
            for seed in (0, 0, 1)
        ]
        assert drawn[0] == drawn[1] != drawn[2]


class TestBalance:
    @pytest.mark.parametrize(
        ("rows", "wanted"),
        [
            pytest.param(10, 60, id="six times"),
            pytest.param(41, 246, id="six times, just below"),
            pytest.param(42, 250, id="at most 250"),
            pytest.param(200, 250, id="a little more"),
            pytest.param(250, 250, id="enough"),
            pytest.param(300, 300, id="more than enough"),
        ],
    )
    def test_the_published_rule(self, rows: int, wanted: int) -> None:
        records = [record(number, "B") for number in range(rows)]
        made, *_ = resample(groups(*records), sampling(balance="small"), ["train"])
        assert len(made[ALL]) == len(made[BUSI]) == wanted
        assert len({item.id.partition("#")[0] for item in made[ALL]}) == rows

    def test_only_classification_is_repeated(self) -> None:
        records = [record(number, f"[[0, 0, {number}, 9]]", task="detection") for number in range(5)]
        made, *_ = resample(groups(*records), sampling(balance="small"), ["train"])
        assert len(made[ALL]) == 5

    def test_classes_are_evened_within_a_question_by_what_a_letter_stands_for(self) -> None:
        other = "Which? A: malignant, B: benign, C: none"
        records = [record(number, "A") for number in range(6)] + [record(6, "B"), record(7, "C")]
        records += [record(8, "B", question=other), record(9, "B", question="Which grade? A: I, B: II")]
        made, *_ = resample(groups(*records), sampling(balance="classes"), ["train"])
        counts = Counter((item.question, item.target) for item in made[ALL])
        assert counts[QUESTION, "A"] + counts[other, "B"] == 7  # both are benign
        assert (counts[QUESTION, "B"], counts[QUESTION, "C"]) == (7, 7)
        assert counts["Which grade? A: I, B: II", "B"] == 1

    def test_datasets_are_evened_in_entries_of_several(self) -> None:
        records = [record(number) for number in range(9)] + [record(number, dataset="endo") for number in range(2)]
        made, *_ = resample(groups(*records), sampling(balance="datasets"), ["train"])
        assert Counter(item.dataset for item in made[ALL]) == {"BUSI": 9, "endo": 9}
        assert len(made[Entry("dataset", "endo", "train")]) == 2


class TestOversampling:
    records = (
        *(record(number, "3", dataset="bone", task="regression") for number in range(3)),
        *(record(number, dataset="bcn20000") for number in range(8)),
    )
    origin = OversamplingSource(Task.REGRESSION, "bcn20000", 5)

    def test_rows_join_the_entry_of_the_task_alone(self) -> None:
        made, *_ = resample(groups(*self.records), sampling(oversampling=(self.origin,)), ["train"])
        joined = made[Entry("task", "regression", "train")]
        assert Counter(item.dataset for item in joined) == {"bone": 3, "bcn20000": 5}
        assert len({item.id for item in joined}) == 8
        assert len(made[ALL]) == 11

    def test_too_few_rows_are_refused(self) -> None:
        with pytest.raises(ValueError, match="has 8 rows"):
            resample(
                groups(*self.records),
                sampling(oversampling=(OversamplingSource(Task.REGRESSION, "bcn20000", 9),)),
                ["train"],
            )

    def test_unknown_datasets_are_refused(self) -> None:
        with pytest.raises(ValueError, match="did you mean 'bcn20000'"):
            resample(groups(*self.records), sampling(rates={"bcn2000": 2.0}), ["train"])


class TestFlatten:
    def test_one_record_per_image(self) -> None:
        flat = views(record(0, image_count=3))
        assert [item.id for item in flat] == ["BUSI/0#image1", "BUSI/0#image2", "BUSI/0#image3"]
        assert [item.images for item in flat] == [["BUSI-0-0.png"], ["BUSI-0-1.png"], ["BUSI-0-2.png"]]
        assert [item.source.sizes for item in flat] == [[(10, 20)], [(11, 20)], [(12, 20)]]
        assert {item.conversations[0].value for item in flat} == {f"<image>\n{QUESTION}"}

    def test_numbers_of_images_go(self) -> None:
        fields = {"id": "r", "task": "classification", "dataset": "d", "source": record(0, image_count=2).source}
        numbered = make_record(
            question="Which?", answer="A", images=["a", "b"], titles=["Image-1", "Image-2"], **fields
        )
        assert {item.conversations[0].value for item in views(numbered)} == {"<image>\nWhich?"}

    def test_boxes_lie_on_the_first_image_and_stay_with_it(self) -> None:
        item = record(0, "[[1, 2, 3, 4]]", task="detection", image_count=2)
        assert views(item) == [item]


def test_named_splits_stay_and_get_a_twin_for_training() -> None:
    made, *_ = resample(groups(record(0, image_count=2), split="A"), sampling(flatten=True), ["train", "A"])
    assert len(made[Entry("all", "all", "A")]) == 1
    assert len(made[Entry("all", "all", "A_train")]) == 2


def test_a_twin_that_is_a_split_already_is_refused() -> None:
    splits = groups(record(0), split="A") | groups(record(1), split="A_train")
    with pytest.raises(DataError, match="A_train would be both"):
        resample(splits, sampling(flatten=True), ["train", "A", "A_train"])


class TestCommandLine:
    @pytest.fixture(scope="class")
    def tree(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        root = tmp_path_factory.mktemp("tree")
        for dataset, category, rows in (("BUSI", "Ultrasound", 8), ("endo", "Endoscopy", 4)):
            for folder, stem, images in (("training", "train", "imagesTr"), ("validation-public", "val", "imagesVal")):
                place = root / folder / category / dataset
                (place / images).mkdir(parents=True)
                questions = []
                for number in range(rows):
                    names = [f"{images}/{number}-{view}.png" for view in range(2 if dataset == "endo" else 1)]
                    for view, name in enumerate(names):
                        Image.new("RGB", (8, 8), (20 * number, 90 * view, rows)).save(place / name)
                    questions.append({"TaskType": "classification", "ImageName": names, "Question": QUESTION,
                                      "Answer": "AB"[number % 2]})  # fmt: skip
                (place / f"{dataset}_questions_{stem}.json").write_text(json.dumps(questions))
        return root

    def convert(self, tree: Path, out: Path, *options: str) -> tuple[int, dict[str, Any], dict[str, Any]]:
        arguments = ["--root", str(tree), "--out", str(out), "--dataset-info", str(out / "dataset_info.json")]
        try:
            code = main([*arguments, "--workers", "1", "--contamination", "off", *options])
        except SystemExit as stop:
            return int(stop.code or 0), {}, {}
        read = [json.loads((out / name).read_text()) if (out / name).exists() else {}
                for name in ("dataset_info.json", "report.json")]  # fmt: skip
        return code, read[0], read[1]

    @pytest.mark.subprocess
    def test_num_samples_come_and_go_and_a_users_own_stays(self, tree: Path, tmp_path: Path) -> None:
        _, entries, report = self.convert(tree, tmp_path, "--sample", "BUSI=0.5", "endo=3")
        assert {name: entry["num_samples"] for name, entry in entries.items() if "num_samples" in entry} == {
            "flare_busi_train": 4, "flare_endo_train": 12}  # fmt: skip
        assert len(read_records(tmp_path / "flare_all_train.json")) == 16
        assert len(read_records(tmp_path / "flare_all_val.json")) == 12
        assert {line["entry"] for line in report["sampling"]} >= {"flare_busi_train", "flare_all_train"}
        assert main(["--validate", str(tmp_path), "--dataset-info", str(tmp_path / "dataset_info.json")]) == 0
        entries["flare_endo_train"]["num_samples"] = 7
        (tmp_path / "dataset_info.json").write_text(json.dumps(entries))
        _, entries, _ = self.convert(tree, tmp_path)
        assert {name: entry["num_samples"] for name, entry in entries.items() if "num_samples" in entry} == {
            "flare_endo_train": 7}  # fmt: skip

    @pytest.mark.subprocess
    def test_balance_and_flatten_keep_the_counts_of_rows(self, tree: Path, tmp_path: Path) -> None:
        _, _, report = self.convert(tree, tmp_path, "--balance", "small", "--flatten-multi-image")
        trained = read_records(tmp_path / "flare_all_train.json")
        assert report["counts"]["kept"] == 24
        assert len(trained) == 6 * (8 + 8)
        assert len({item.id for item in trained}) == len(trained)
        assert all(len(item.images) == 1 for item in trained)
        assert main(["--validate", str(tmp_path), "--dataset-info", str(tmp_path / "dataset_info.json")]) == 0

    @pytest.mark.subprocess
    @pytest.mark.parametrize(
        ("options", "code"),
        [
            pytest.param(["--sample", "BUSY=2"], 2, id="unknown dataset"),
            pytest.param(["--sample", "BUSI=0"], 2, id="rate of nothing"),
            pytest.param(["--sample", "BUSI=1", "BUSI=2"], 2, id="twice"),
            pytest.param(["--oversample", "regresion=BUSI:5"], 2, id="unknown task"),
            pytest.param(["--sample", "BUSI=inf"], 2, id="endless rate"),
            pytest.param(["--oversample", "regression=BUSI"], 2, id="no rows"),
            pytest.param(["--oversample", "regression=BUSI:2"], 3, id="a task that no record has"),
            pytest.param(["--oversample", "counting=BUSI:2", "counting=BUSI:2"], 2, id="a donor twice"),
        ],
    )
    def test_what_cannot_be_followed_is_refused(
        self, tree: Path, tmp_path: Path, options: list[str], code: int
    ) -> None:
        assert self.convert(tree, tmp_path, *options) == (code, {}, {})

    @pytest.mark.training
    @pytest.mark.parametrize(("rate", "drawn"), [("0.5", 4), ("2.25", 18)])
    def test_llamafactory_draws_num_samples_all_once_before_any_twice(
        self, tree: Path, tmp_path: Path, rate: str, drawn: int
    ) -> None:
        from llamafactory.data.loader import _load_single_dataset
        from llamafactory.data.parser import get_dataset_list
        from llamafactory.hparams import DataArguments, ModelArguments

        self.convert(tree, tmp_path, "--sample", f"BUSI={rate}")
        (attributes,) = get_dataset_list(["flare_busi_train"], str(tmp_path))
        training = SimpleNamespace(dataloader_num_workers=0, local_process_index=0, should_log=False)
        data = DataArguments(dataset_dir=str(tmp_path), overwrite_cache=True)
        models = ModelArguments(model_name_or_path="x", cache_dir=str(tmp_path / "cache"))
        rows = _load_single_dataset(attributes, models, data, training)
        seen = Counter(str(row["_images"]) for row in rows)
        assert len(rows) == drawn
        assert len(seen) == min(drawn, 8)
