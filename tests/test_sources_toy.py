"""A source that is not FLARE, from its tree to a score; and the page that shows how to add one.

The toy source stands in docs/add_a_dataset.md alone, whose files and diff are applied to a copy of the code.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image, ImageDraw

from medvl.sharegpt import read_records
from medvl.tasks import Task
from tests.support.clones import copy_code

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
HEAD = "image,x,y,width,height,label\n"
TABLES = {
    "train": "a.png,10,20,30,25,cyst\na.png,60,8,12,12,cyst\nb.png,,,,,\n"
    "c.png,5,5,ten,10,cyst\ngone.png,1,1,2,2,cyst\n",
    "test": "d.png,40,30,20,20,cyst\ne.png,,,,,\n",
}
# Convert, train for two steps, predict the converted file, score against tree and file; argv: recipe and profiles.
STEPS = """
import json, sys
from pathlib import Path
from llamafactory.train.tuner import run_exp
from evaluation.run import main as score
from medvl.cli import main as medvl
from medvl.predict.questions import read_questions
from preprocess.toy import main as convert

info = ["--out", "out", "--dataset-info", "out/dataset_info.json", "--contamination", "off"]
assert convert(["--root", "tree", "--workers", "1", *info]) == 0
recipe = json.loads(sys.argv[1])
run_exp(recipe)
command = ["predict", "--data", "out/toy_all_test.json", "--adapter", recipe["output_dir"], "--no-router", "--profiles",
           sys.argv[2], "--out", "records.jsonl", "--challenge", "records.json"]
assert medvl(command) == 0
places = ("tree", "tree/test/Ultrasound/cysts/boxes.csv", "out/toy_all_test.json")
asked = [read_questions(Path(path)) for path in places]
assert len({tuple(question.id for question in questions) for questions in asked}) == 1
for references in ("tree", "out/toy_all_test.json"):
    assert score(["records.jsonl", "--references", references, "--out", f"scores/{references[:4]}"]) == 0
"""


def code_blocks(page: Path) -> dict[str, str]:
    """The block of every language that a page has; "script" is the one in Python that begins with #!."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return {"script" if text.startswith("#!") else language: text for language, text in blocks}


@pytest.fixture(scope="module")
def clone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code with the toy source added as the page says."""
    folder = copy_code(repository, tmp_path_factory.mktemp("clone"), "plugins", "preprocess", "evaluation")
    blocks = code_blocks(repository / "docs" / "add_a_dataset.md")
    (folder / "plugins/medvl/sources/toy.py").write_text(blocks["python"])
    (folder / "preprocess/toy.py").write_text(blocks["script"])
    assert len(blocks["python"].splitlines()) <= 60
    assert len(blocks["diff"].splitlines()) <= 15
    subprocess.run(["git", "apply", "-"], input=blocks["diff"], text=True, cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def toy(clone: Path) -> ModuleType:
    """The module of the page, beside the sources of this process."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("toy", clone / "plugins/medvl/sources/toy.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_tree(root: Path) -> None:
    for split, rows in TABLES.items():
        folder = root / split / "Ultrasound" / "cysts"
        folder.mkdir(parents=True)
        (folder / "boxes.csv").write_text(HEAD + rows)
        for name in {row.split(",")[0] for row in rows.splitlines()} - {"gone.png"}:
            image = Image.new("RGB", (96, 64), (len(name), 40, 60 + ord(name[0])))
            ImageDraw.Draw(image).rectangle((10, 20, 39, 44), fill="white")
            image.save(folder / name)


@pytest.mark.subprocess
def test_a_table_of_boxes_is_converted_trained_on_predicted_and_scored(
    clone: Path, tmp_path: Path, tiny_recipe: Recipe
) -> None:
    write_tree(tmp_path / "tree")
    recipe = tiny_recipe("qwen3vl", dataset="toy_all_train", dataset_dir=str(tmp_path / "out"), medvl_run_card=True)
    profiles = tmp_path / "profiles.yaml"
    profiles.write_text(json.dumps({name: {"max_new_tokens": 6} for name in (*map(str, Task), "general")}))
    environment = os.environ | {"PYTHONPATH": f"{clone}:{clone / 'plugins'}"}
    command = [sys.executable, "-c", STEPS, json.dumps(recipe), str(profiles)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["counts"] == {"in": 6, "kept": 4, "dropped": 1, "quarantined": 1}
    codes = {finding["code"]: finding["detail"] for finding in report["findings"]}
    assert codes.keys() == {"IMAGE_MISSING", "ANSWER_UNUSABLE"}
    assert codes["ANSWER_UNUSABLE"] == (
        "toy/train/Ultrasound/cysts/000002: a box of c.png: could not convert string to float: 'ten'"
    )
    first, second = read_records(tmp_path / "out/toy_cysts_train.json")
    assert first.target == '[{"bbox_2d":[104,312,417,703],"label":"cyst"},{"bbox_2d":[625,125,750,312],"label":"cyst"}]'
    assert first.source.answer == '{"cyst":[[10,20,40,45],[60,8,72,20]]}'
    assert second.target == "[]"

    rows = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"toy/test/Ultrasound/cysts/{index:06d}" for index in range(2)]
    handed_in = json.loads((tmp_path / "records.json").read_text())
    assert [(row["image"], row["label"]) for row in handed_in] == [("d.png", "cyst"), ("e.png", "")]
    scores = [json.loads((tmp_path / f"scores/{name}/metrics.json").read_text()) for name in ("tree", "out/")]
    assert scores[0]["counts"]["matched"] == scores[1]["counts"]["matched"] == 2
    assert scores[0]["tasks"] == scores[1]["tasks"]


def test_a_file_that_is_no_table_of_boxes_is_refused(toy: ModuleType, tmp_path: Path) -> None:
    from medvl.errors import DataError

    write_tree(tmp_path)
    (file, _) = toy.TOY.find(tmp_path).all()
    file.path.write_text("image,x\na.png,1\n")
    with pytest.raises(DataError, match=r"boxes\.csv: no column height, label, width, y"):
        toy.TOY.read(file)
    file.path.unlink()
    assert toy.TOY.find(tmp_path).refused == (f"{file.path.parent}: no boxes.csv in it",)


def test_boxes_in_other_frames_are_scored_in_pixels(toy: ModuleType, tmp_path: Path) -> None:
    """Of a tree as of its converted records: the size of the image is read where the frame needs it."""
    from msgspec.structs import replace

    from evaluation.references import _from_samples

    write_tree(tmp_path)
    (_, file) = toy.TOY.find(tmp_path).all()
    sample = toy.TOY.read(file).samples[0]
    half = toy.BoxAnswer(toy.as_boxes([[0, 0, 0.5, 1]]), (None,), "norm1")
    (reference,) = _from_samples(toy.TOY, [replace(sample, boxes=half)])
    assert reference.answer == "[[0, 0, 48, 64]]"
