"""Answer instructions: one file decides how training and prediction ask."""

import json
from pathlib import Path
from typing import Any

import pytest

from medvl.demo.images import build_tree
from medvl.instructions import Instruction, fingerprint, instruct, instruct_record
from medvl.profiles import read_profiles
from medvl.sharegpt import IMAGE_TAG, Record, Source, make_record, read_records
from medvl.tasks import Task
from medvl.yaml_files import read_yaml
from preprocess.flare import main

PROFILES = """
detection:
  adapter: saves/detection
  instruction: Answer with a JSON list of boxes.
multi-label classification:
  instruction: |
    Name every finding.
    Separate them with semicolons.
  instruction_position: prefix
report_generation:
  max_new_tokens: 512
general:
  adapter: saves/general
"""


def record(question: str, images: int = 1, *, numbered: bool = False, task: str = "detection") -> Record:
    source = Source(split="training", file="q.json", index=0, sizes=[(8, 8)] * images, answer="[]")
    titles = [f"Image-{place}" for place in range(1, images + 1)] if numbered else []
    return make_record(question=question, answer="[]", images=["x.png"] * images, titles=titles, id="r", task=task,
                       dataset="d", source=source)  # fmt: skip


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    (tmp_path / "profiles.yaml").write_text(PROFILES)
    return tmp_path / "profiles.yaml"


def test_profiles_are_read(profiles: Path) -> None:
    assert read_profiles(profiles).instructions == {
        Task.DETECTION: Instruction("Answer with a JSON list of boxes."),
        Task.MULTI_LABEL: Instruction("Name every finding.\nSeparate them with semicolons.", "prefix"),
    }


def test_an_instruction_stands_on_a_line_of_its_own() -> None:
    assert instruct("Where?", Instruction("Boxes.")) == "Where?\nBoxes."
    assert instruct("Where?", Instruction("Boxes.", "prefix")) == "Boxes.\nWhere?"
    assert instruct(" Where? \n", None) == " Where? \n"


@pytest.mark.parametrize("position", ["suffix", "prefix"])
@pytest.mark.parametrize("question", ["Where?", "\nWhere?\n", "Image-1: what?"])
@pytest.mark.parametrize(("images", "numbered"), [(0, False), (1, False), (3, False), (3, True)])
def test_records_are_asked_as_prediction_asks(images: int, numbered: bool, question: str, position: Any) -> None:
    instruction = Instruction("Boxes.", position)
    asked = instruct_record(record(question, images, numbered=numbered), {Task.DETECTION: instruction})
    assert asked == record(instruct(question, instruction), images, numbered=numbered)
    assert asked.conversations[0].value.count(IMAGE_TAG) == images


def test_other_tasks_are_asked_verbatim() -> None:
    item = record("Which?", task="classification")
    assert instruct_record(item, {Task.DETECTION: Instruction("Boxes.")}) is item


def test_the_fingerprint_is_of_what_is_said() -> None:
    one = {Task.DETECTION: Instruction("Boxes."), Task.COUNTING: Instruction("Count.")}
    assert fingerprint(one) == fingerprint(dict(reversed(one.items())))
    assert len({fingerprint(one), fingerprint({}), fingerprint({Task.DETECTION: Instruction("Boxes.", "prefix")})}) == 3


def test_keys_inside_are_not_repeated_either(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: {b: 1, b: 2}")
    with pytest.raises(ValueError, match="'b' stands twice"):
        read_yaml(tmp_path / "x.yaml")
    with pytest.raises(ValueError, match=r"gone\.yaml"):
        read_yaml(tmp_path / "gone.yaml")


@pytest.mark.subprocess
def test_converter_asks_in_all_splits_and_says_so(profiles: Path, tmp_path: Path) -> None:
    build_tree(tmp_path / "tree", train=2, val=1)
    command = ["--root", str(tmp_path / "tree"), "--workers", "1", "--contamination", "off"]
    outputs = {}
    for name, options in (("plain", []), ("asked", ["--profiles", str(profiles)])):
        out = tmp_path / name
        assert main([*command, "--out", str(out), "--dataset-info", str(out / "dataset_info.json"), *options]) == 0
        outputs[name] = {split: read_records(out / f"flare_all_{split}.json") for split in ("train", "val")}
    instructions = read_profiles(profiles).instructions
    for split, plain in outputs["plain"].items():
        assert outputs["asked"][split] == [instruct_record(item, instructions) for item in plain]
        assert outputs["asked"][split] != plain
    manifest = json.loads((tmp_path / "asked" / "manifest.json").read_text())
    assert manifest["options"]["profiles_fingerprint"] == fingerprint(instructions)
    plain_manifest = json.loads((tmp_path / "plain" / "manifest.json").read_text())
    assert plain_manifest["options"]["profiles_fingerprint"] is None


@pytest.mark.subprocess
def test_converter_refuses_a_bad_file_before_it_reads_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--root", str(tmp_path), "--out", str(tmp_path / "out"), "--profiles", str(tmp_path / "gone.yaml")]
    assert main(command) == 2
    assert "gone.yaml" in capsys.readouterr().err
