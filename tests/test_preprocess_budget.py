"""Tokens per record: the formula against the libraries' own rules, the count against LLaMA-Factory's tokenisation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from medvl.demo.images import build_tree
from medvl.sharegpt import Record, Source, make_record, read_records
from preprocess.flare import main
from preprocess.tokens.formula import TokenRules, formula, image_tokens, read_rules, text_tokens
from preprocess.unchanged import REPOSITORY

SIZES = [(640, 480), (480, 640), (1, 1), (3000, 20), (28, 28), (31, 5000), (2048, 2048), (767, 769), (448, 448),
         (896, 448), (1000, 333), (4000, 3000), (5000, 5000), (449, 448), (64, 64), (7, 2000)]  # fmt: skip


def record(question: str, answer: str, *sizes: tuple[int, int]) -> Record:
    source = Source(split="training", file="q.json", index=0, sizes=list(sizes), answer=answer)
    images = [f"{number}.png" for number in range(len(sizes))]
    return make_record(question=question, answer=answer, images=images, id="r", task="classification",
                       dataset="BUSI", source=source)  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    build_tree(root, train=4, val=2)
    return root


def convert(tree: Path, out: Path, *options: str) -> tuple[int, dict[str, Any]]:
    arguments = ["--root", str(tree), "--out", str(out), "--dataset-info", str(out / "dataset_info.json")]
    code = main([*arguments, "--workers", "1", "--contamination", "off", *options])
    report = out / "report.json"
    return code, json.loads(report.read_text()) if report.exists() else {}


class TestImageFormula:
    @pytest.mark.training
    @pytest.mark.parametrize("pixels", [50_176, 589_824, 4_194_304])
    def test_qwen3_vl(self, pixels: int) -> None:
        """Against LLaMA-Factory's resize and transformers' image processor with Qwen3-VL's published limits."""
        from llamafactory.data.mm_plugin import get_mm_plugin
        from transformers import Qwen2VLImageProcessor

        plugin = get_mm_plugin("qwen3_vl", image_token="<|image_pad|>", video_token="<|video_pad|>")
        limits = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
        processor = Qwen2VLImageProcessor(patch_size=16, merge_size=2, size=limits)
        rules = TokenRules("qwen3_vl_nothink", image_max_pixels=pixels)
        for size in SIZES:
            resized = plugin._preprocess_image(Image.new("L", size), image_max_pixels=pixels, image_min_pixels=1024)
            expected = processor.get_number_of_image_patches(resized.height, resized.width, {}) // 4
            assert image_tokens(size, rules) == expected, size

    @pytest.mark.training
    @pytest.mark.parametrize("crop", [False, True])
    def test_internvl3(self, crop: bool) -> None:
        """Against LLaMA-Factory's resize and transformers' tiling rule."""
        from llamafactory.data.mm_plugin import get_mm_plugin
        from transformers import GotOcr2ImageProcessor

        plugin = get_mm_plugin("intern_vl", image_token="<image>", video_token="<video>")
        options = {"crop_to_patches": crop, "min_patches": 1, "max_patches": 12}
        processor = GotOcr2ImageProcessor(size={"height": 448, "width": 448}, **options)
        rules = TokenRules("intern_vl", crop_to_patches=crop)
        for size in SIZES:
            resized = plugin._preprocess_image(Image.new("L", size), image_max_pixels=589_824, image_min_pixels=1024)
            if min(resized.size) > 0:
                tiles = processor.get_number_of_image_patches(resized.height, resized.width, options)
                assert image_tokens(size, rules) == 256 * tiles, size

    def test_one_flag_costs_thirteen_times(self) -> None:
        tiles = [image_tokens((640, 480), TokenRules("intern_vl", crop_to_patches=crop)) for crop in (False, True)]
        assert tiles == [256, 3328]


class TestTextFormula:
    @pytest.mark.parametrize(
        ("text", "tokens"),
        [
            pytest.param("", 0, id="nothing"),
            pytest.param("137", 3, id="a digit is a token"),
            pytest.param("lesion", 2, id="a word"),
            pytest.param('[{"bbox_2d":[10,20,30,40],"label":"lesion"}]', 29, id="a box"),
            pytest.param("书生", 2, id="other scripts"),
        ],
    )
    def test_text(self, text: str, tokens: int) -> None:
        assert text_tokens(text) == tokens

    def test_a_record_is_frame_text_and_images(self) -> None:
        count = formula(TokenRules("qwen3_vl_nothink", default_system=""))
        assert count(record("Which?", "A", (640, 480))) == (10 + 3 + 1 + 3, 300)
        assert count(record("Which?", "A", (640, 480), (640, 480)))[1] == 600
        assert formula(TokenRules("intern_vl"))(record("Which?", "A"))[0] > 50  # its own system prompt

    def test_templates_without_a_formula_are_refused(self) -> None:
        with pytest.raises(ValueError, match="llava"):
            formula(TokenRules("llava"))


@pytest.mark.training
def test_settings_of_a_recipe_are_its_own_and_llamafactorys_defaults() -> None:
    from llamafactory.hparams import DataArguments, ModelArguments

    rules, models = read_rules({"template": "intern_vl", "crop_to_patches": True}), ModelArguments("x")
    assert (rules.image_max_pixels, rules.image_min_pixels) == (models.image_max_pixels, models.image_min_pixels)
    assert (rules.cutoff_len, rules.crop_to_patches) == (DataArguments().cutoff_len, True)


CASES = {
    "qwen3vl": ("qwen3vl", {"template": "qwen3_vl_nothink", "default_system": ""}),
    "qwen3vl with system": ("qwen3vl", {"template": "qwen3_vl_nothink", "default_system": "Be careful, 42."}),
    "qwen3vl thinking": ("qwen3vl", {"template": "qwen3_vl"}),
    "qwen3vl not thinking": ("qwen3vl", {"template": "qwen3_vl", "enable_thinking": False}),
    "qwen3vl small": ("qwen3vl", {"template": "qwen3_vl_nothink", "image_max_pixels": 2048}),
    "internvl3": ("internvl3", {"template": "intern_vl", "default_system": ""}),
    "internvl3 own system": ("internvl3", {"template": "intern_vl"}),
    "internvl3 tiles": ("internvl3", {"template": "intern_vl", "crop_to_patches": True}),
}


@pytest.mark.training
@pytest.mark.parametrize(("family", "recipe"), CASES.values(), ids=CASES.keys())
def test_counts_are_those_of_llamafactory(
    tree: Path, tmp_path: Path, tiny_checkpoint: Callable[[str], Path], family: str, recipe: dict[str, Any]
) -> None:
    """Every drawn record, and images of odd sizes, through LLaMA-Factory's own loading and tokenising."""
    from preprocess.tokens.processor import TokenCounter

    convert(tree, tmp_path / "out")
    records = read_records(tmp_path / "out" / "flare_all_train.json")
    for number, size in enumerate([(333, 77), (40, 200), (500, 500)]):
        Image.fromarray(np.full((size[1], size[0], 3), 40 * number, np.uint8)).save(tmp_path / f"{number}.png")
        odd = record(f"Where is {number}?\n", '[{"bbox_2d":[1,22,333,4]}]', size, size)
        records.append(Record(**{name: getattr(odd, name) for name in odd.__struct_fields__}
                              | {"images": [str(tmp_path / f"{number}.png")] * 2}))  # fmt: skip
    counter = TokenCounter(str(tiny_checkpoint(family)), {**recipe, "cutoff_len": 100_000})
    expected = tokenised(str(tiny_checkpoint(family)), recipe, records)
    assert [sum(counter(item)) for item in records] == [total for total, _, _ in expected]
    assert [counter(item)[1] for item in records] == [image for _, image, _ in expected]
    # The label mask: the whole answer is trained on, and nothing but it and the end of the turn.
    targets = [target.removeprefix("<think>\n\n</think>\n\n") for *_, target in expected]
    assert targets == [f"{item.target}<|im_end|>\n" for item in records]


def tokenised(checkpoint: str, recipe: dict[str, Any], records: list[Record]) -> list[tuple[int, int, str]]:
    """Length, number of image tokens, and text that is trained on of every record as LLaMA-Factory tokenises it."""
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.data.processor import SupervisedDatasetProcessor
    from llamafactory.hparams import DataArguments, ModelArguments
    from llamafactory.model import load_tokenizer

    vision = {key: value for key, value in recipe.items() if key in ("image_max_pixels", "crop_to_patches")}
    loaded = load_tokenizer(ModelArguments(model_name_or_path=checkpoint, **vision))
    arguments = DataArguments(**{key: value for key, value in recipe.items() if key not in vision}, cutoff_len=100_000)
    template = get_template_and_fix_tokenizer(loaded["tokenizer"], arguments)
    encoder = SupervisedDatasetProcessor(template, loaded["tokenizer"], loaded["processor"], arguments)
    token = "<|image_pad|>" if "qwen" in recipe["template"] else "<IMG_CONTEXT>"
    pixel = loaded["tokenizer"].convert_tokens_to_ids(token)
    lengths = []
    for item in records:
        prompt = [{"role": "user", "content": item.conversations[0].value}]
        response = [{"role": "assistant", "content": item.target}]
        ids, labels = encoder._encode_data_example(prompt, response, None, None, item.images, [], [])
        assert len(ids) == len(labels)
        target = loaded["tokenizer"].decode([label for label in labels if label != -100])
        lengths.append((len(ids), ids.count(pixel), target))
    return lengths


class TestCommandLine:
    @pytest.mark.subprocess
    def test_without_options_both_families_have_a_histogram(self, tree: Path, tmp_path: Path) -> None:
        _, report = convert(tree, tmp_path)
        assert [section["name"] for section in report["tokens"]] == ["qwen3_vl", "intern_vl"]
        for section in report["tokens"]:
            for split in section["splits"].values():
                assert sum(bar["records"] for bar in split["histogram"]) == split["records"]
                assert split["median"] <= split["p90"] <= split["p99"] <= split["max"]

    @pytest.mark.subprocess
    @pytest.mark.parametrize("recipe", sorted(path.name for path in (REPOSITORY / "recipes").glob("flare_*.yaml")))
    def test_every_flare_recipe_can_be_counted_for(self, tree: Path, tmp_path: Path, recipe: str) -> None:
        _, report = convert(tree, tmp_path, "--recipe", str(REPOSITORY / "recipes" / recipe))
        (section,) = report["tokens"]
        assert (section["method"], section["over_cutoff_len"]) == ("formula", 0)

    @pytest.mark.subprocess
    @pytest.mark.parametrize(
        ("policy", "train"), [("flag", "kept"), ("drop", "dropped"), ("quarantine", "quarantined")]
    )
    def test_long_records(self, tree: Path, tmp_path: Path, policy: str, train: str) -> None:
        code, report = convert(tree, tmp_path, "--cutoff-len", "20", "--over-budget", policy)
        trained = [part for part in report["datasets"] if part["split"] == "training"]
        assert code == 0
        assert all(part[train] == part["in"] for part in trained)
        assert all(part["kept"] == part["in"] for part in report["datasets"] if part["split"] != "training")
        assert {finding["code"] for finding in report["findings"]} >= {"OVER_BUDGET"}

    @pytest.mark.subprocess
    def test_error_writes_nothing(self, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert convert(tree, tmp_path, "--cutoff-len", "20", "--over-budget", "error") == (3, {})
        assert "20" in capsys.readouterr().err

    @pytest.mark.subprocess
    def test_the_processor_of_a_recipe(
        self, tree: Path, tmp_path: Path, tiny_checkpoint: Callable[[str], Path]
    ) -> None:
        recipe = {"model_name_or_path": str(tiny_checkpoint("qwen3vl")), "template": "qwen3_vl_nothink",
                  "default_system": "", "cutoff_len": 64}  # fmt: skip
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        _, report = convert(tree, tmp_path / "out", "--recipe", str(tmp_path / "recipe.yaml"), "--processor")
        (section,) = report["tokens"]
        over = [finding for finding in report["findings"] if finding["code"] == "OVER_BUDGET"]
        assert (section["method"], section["over_cutoff_len"]) == ("processor", len(over))
        assert sum(part["records"] for part in section["splits"].values()) == report["counts"]["kept"]

    @pytest.mark.subprocess
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            pytest.param(["--processor", "x"], "--recipe", id="a processor without its recipe"),
            pytest.param(["--over-budget", "drop"], "--cutoff-len", id="no limit"),
            pytest.param(["--recipe", "gone.yaml"], "gone.yaml", id="no such recipe"),
        ],
    )
    def test_options_that_cannot_be_followed(
        self, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
    ) -> None:
        assert convert(tree, tmp_path, *options) == (2, {})
        assert message in capsys.readouterr().err

    @pytest.mark.subprocess
    def test_a_template_without_a_formula(self, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "recipe.yaml").write_text("template: llava\n")
        assert convert(tree, tmp_path / "out", "--recipe", str(tmp_path / "recipe.yaml"))[0] == 2
        assert "--processor" in capsys.readouterr().err
