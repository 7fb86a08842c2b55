"""`medvl fit`: what it tries, what it survives, and that what it chooses trains the same."""

import json
import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("llamafactory")
import torch
from llamafactory.train.sft import workflow
from llamafactory.train.tuner import run_exp

from medvl.factory.run_card import read_run_card
from medvl.fit import commands, preparing, trial
from medvl.fit.preparing import LONGEST, UNTIMED
from medvl.fit.report import Row, best
from medvl.fit.settings import Setting, applied, candidates, changes, own_setting, words
from medvl.fit.trial import OK, OUT_OF_MEMORY, Measured
from medvl.fit.trial import REFUSED as REFUSED_BY_TRAINING
from medvl.fit.trying import Tried, Tries
from medvl.processes import run_logged

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
WriteRecipe = Callable[..., Path]
HERE = Path(__file__).parents[1] / "recipes" / "flare_qwen3vl_4b_lora.yaml"
AS_IT_IS, WHOLE = (2, 2, True), (4, 1, True)


class InProcess:
    """Runs the steps of a fit without processes, and notes which settings were tried.

    Attributes:
        tried: (micro-batch, accumulation, checkpointing) of each trial.
        out_of_memory, killed: Those that raise torch.OutOfMemoryError, and whose process is killed.
        prepared: How often the data was.
        interrupts: The trial of this number is interrupted by Ctrl-C.
    """

    def __init__(self) -> None:
        """Nothing fails."""
        self.tried: list[tuple[int, int, bool]] = []
        self.out_of_memory: set[tuple[int, int, bool]] = set()
        self.killed: set[tuple[int, int, bool]] = set()
        self.prepared, self.interrupts = 0, -1

    def __call__(self, title: str, command: Sequence[str], log: Path) -> None:
        words = list(command[-2:])
        if "medvl.fit.preparing" in command:
            self.prepared += 1
            preparing.main(words)
            return
        recipe = json.loads(Path(words[0]).read_text())["recipe"]
        sizes = recipe["per_device_train_batch_size"], recipe["gradient_accumulation_steps"]
        setting = (*sizes, not recipe.get("disable_gradient_checkpointing", False))
        if len(self.tried) == self.interrupts:
            raise KeyboardInterrupt
        self.tried.append(setting)
        if setting in self.killed:
            suicide = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
            run_logged([sys.executable, "-S", "-c", suicide], title=title, cwd=log.parent, log=log)
        with pytest.MonkeyPatch.context() as patch:
            if setting in self.out_of_memory:
                patch.setattr(workflow.CustomSeq2SeqTrainer.stock, "training_step", _no_memory)
            trial.main(words)


def _no_memory(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nOf the rest nobody reads.")


@pytest.fixture
def recipe(tiny_recipe: Recipe, tmp_path: Path) -> WriteRecipe:
    """`recipe(**keys)`: the file of a tiny recipe of 2 x 2 records a step, with other keys."""

    def write(family: str = "qwen3vl", **keys: Any) -> Path:
        accumulated = {"gradient_accumulation_steps": 2, "medvl_run_card": True}
        content = tiny_recipe(family, **(accumulated | keys))
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return path

    return write


def fit(path: Path, runner: Any, *words: str) -> int:
    parser = ArgumentParser()
    commands.add_arguments(parser)
    return commands.run(parser.parse_args([str(path), *words]), runner)


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The JSON on standard output, behind what the trials print there when they are no processes."""
    _, mark, text = capsys.readouterr().out.rpartition('{\n  "schema"')
    content: dict[str, Any] = json.loads(mark + text)
    return content


@pytest.mark.parametrize("family", ["qwen3vl", "internvl3"])
def test_the_fastest_setting_is_chosen_written_and_trains(
    family: str, recipe: WriteRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, runner = recipe(family, eval_dataset="tiny_val", do_eval=True, eval_strategy="steps"), InProcess()
    assert fit(path, runner, "num_train_epochs=3", "max_steps=-1", "--steps", "2", "--json") == commands.OK
    assert runner.tried == [AS_IT_IS, WHOLE, (2, 2, False), (4, 1, False)]
    found = told(capsys)
    settings = found["settings"]
    assert {row["state"] for row in settings} == {"ok"}
    assert max(row["samples_s"] for row in settings) * 0.98 <= found["chosen"]["samples_s"]
    assert all(row["gib_computed"] and row["gib"] >= 1 for row in settings)
    assert (found["records"], found["steps"]) == (8, 6)
    chosen = found["chosen"]["setting"]
    fitted = yaml.safe_load((tmp_path / "recipe_fitted.yaml").read_text())
    before = yaml.safe_load(path.read_text()) | {"num_train_epochs": 3, "max_steps": -1}
    changed = {key for key in before.keys() | fitted.keys() if before.get(key) != fitted.get(key)}
    assert changed == set(found["overrides"])
    header = (tmp_path / "recipe_fitted.yaml").read_text().partition("\n\n")[0]
    for word in ("CPU, no GPU", "samples/s", "computed", "4 records in each step", "torch 2.11"):
        assert word in header + (tmp_path / "recipe_fitted.yaml").read_text()
    run_exp(fitted | {"max_steps": 1, "do_eval": False, "eval_strategy": "no"})
    training = read_run_card(tmp_path / "out").training
    assert (training.per_device_train_batch_size, training.batch_size, training.loss_group) == (chosen["batch"], 4, 2)
    assert training.gradient_checkpointing is chosen["checkpointing"]


def test_settings_that_run_out_of_memory_or_are_killed_cost_themselves_alone(
    recipe: WriteRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, runner = recipe(), InProcess()
    runner.killed, runner.out_of_memory = {WHOLE}, {(2, 2, False)}
    assert fit(path, runner, "--steps", "1") == commands.OK
    # A larger micro-batch of a kind that ran out is not tried, a smaller one is.
    assert runner.tried == [AS_IT_IS, WHOLE, (2, 2, False), (1, 4, False)]
    printed = capsys.readouterr()
    assert "2 x 2, no checkpointing: CUDA out of memory. Tried to allocate 2.00 GiB." in printed.out
    assert "nobody reads" not in printed.out
    assert f"exit code {-signal.SIGKILL}" in printed.out
    assert "as it is" in printed.out
    assert (tmp_path / "recipe_fitted.yaml").is_file()


def test_nothing_fits(recipe: WriteRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner = InProcess()
    runner.out_of_memory = {AS_IT_IS, (1, 4, True)}
    assert fit(recipe(), runner, "--steps", "1") == commands.INCOMPLETE
    assert runner.tried == [AS_IT_IS, (1, 4, True)]  # without checkpointing each needs more
    assert "No setting could be trained with" in capsys.readouterr().out
    assert not (tmp_path / "recipe_fitted.yaml").exists()


def test_a_stopped_fit_goes_on_and_another_one_starts_anew(
    recipe: WriteRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, runner, out = recipe(), InProcess(), tmp_path / "recipe_fitted.yaml"
    runner.interrupts = 2
    with pytest.raises(KeyboardInterrupt):
        fit(path, runner, "--steps", "1")
    assert "goes on from there" in capsys.readouterr().err
    assert not out.exists()
    runner.interrupts = -1
    assert fit(path, runner, "--steps", "1") == commands.OK
    assert "going on after 2 settings" in capsys.readouterr().err
    assert len(runner.tried) == 4 and runner.prepared == 1
    written = out.read_bytes()
    assert fit(path, runner, "--steps", "1") == commands.OK  # all is known: the table again
    assert len(runner.tried) == 4 and runner.prepared == 1
    assert out.read_bytes() == written
    assert "samples/s" in capsys.readouterr().out

    path.write_text(path.read_text().replace("lora_rank: 4", "lora_rank: 2"))
    assert fit(path, runner, "--steps", "1") == commands.USAGE
    assert "It is of another recipe. Delete it" in " ".join(capsys.readouterr().err.split())
    out.unlink()
    runner.out_of_memory = {AS_IT_IS, (1, 4, True)}
    assert fit(path, runner, "--steps", "1") == commands.INCOMPLETE
    assert "kept results are of another recipe; starting anew" in " ".join(capsys.readouterr().err.split())
    out.write_text("mine")
    assert fit(path, runner, "--steps", "1") == commands.USAGE
    assert out.read_text() == "mine"


def test_bits_may_change_where_that_is_allowed(
    recipe: WriteRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked for after a fit has ended: what was measured is kept, and the data are prepared again."""
    path, runner = recipe(per_device_train_batch_size=1, gradient_accumulation_steps=1), InProcess()
    assert fit(path, runner, "--steps", "1", "--json") == commands.OK
    assert [row["setting"]["bits"] for row in told(capsys)["settings"]] == [None, None]
    assert fit(path, runner, "--steps", "1", "--json", "--allow-bits") == commands.OK
    found = told(capsys)
    assert [row["setting"]["bits"] for row in found["settings"]] == [None, None, 4, 4]
    assert {row["state"] for row in found["settings"]} == {"ok"}
    assert (len(runner.tried), runner.prepared) == (4, 2)
    fitted = yaml.safe_load((tmp_path / "recipe_fitted.yaml").read_text())
    assert fitted.get("quantization_bit") == found["chosen"]["setting"]["bits"]
    assert ("but NOT the precision" in (tmp_path / "recipe_fitted.yaml").read_text()) is ("quantization_bit" in fitted)


def test_trials_begin_with_the_longest_records(recipe: WriteRecipe, tmp_path: Path) -> None:
    content = yaml.safe_load(recipe().read_text())
    facts = preparing.prepare(preparing.Spec(content, str(tmp_path / "rows"), 4, 2, 1, True))
    assert len(facts.places) == (UNTIMED + 2) * 4
    assert facts.rows == 8
    longest = facts.places[:4]
    assert facts.places[: 4 * LONGEST] == longest * LONGEST
    assert set(longest[:2]) == {3, 7}  # of two images and boxes
    assert sorted(facts.places[8:16]) == list(range(8))  # then all, drawn without repetition
    assert all(0 < tokens < 4 * facts.longest for tokens in facts.tokens)


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "unknown key": ({"lora_rnak": 8}, (), "lora_rnak"),
    "unknown override": ({}, ("lora_rnak=8",), "lora_rnak"),
    "no override": ({}, ("lora_rank",), "lora_rank: expected key=value"),
    "no data": ({"dataset": None}, (), "dataset is missing"),
    "unknown data": ({"dataset": "nowhere"}, (), "nowhere"),
    "a recipe that trains nothing": ({"do_train": None}, (), "does not train"),
    "another stage": ({"stage": "dpo"}, (), "only `stage: sft` is measured"),
    "a stream": ({"streaming": True, "max_steps": 2}, (), "streaming=false"),
    "memory without a GPU": ({}, ("--memory", "24"), "there is no GPU to limit"),
    "half a micro-batch": ({"per_device_train_batch_size": 0.5}, (), "is not a whole number"),
    "out is no recipe": ({}, ("--out", "fast.txt"), "ends in .yaml"),
    "out is there": ({}, ("--out", str(HERE)), "exists"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, recipe: WriteRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    keys, words, expected = REFUSED[name]
    runner = InProcess()
    assert fit(recipe(**keys), runner, *words) in (commands.USAGE, commands.REFUSED)
    assert expected in " ".join(capsys.readouterr().err.split())
    assert runner.tried == []


@pytest.mark.parametrize("words", [("--memory", "much"), ("--memory", "0"), ("--steps", "0")])
def test_options_without_a_meaning(words: tuple[str, str], recipe: WriteRecipe) -> None:
    with pytest.raises(SystemExit, match="2"):
        fit(recipe(), InProcess(), *words)


def test_without_weights_memory_is_computed_and_nothing_is_chosen(
    recipe: WriteRecipe, tiny_checkpoint: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((tiny_checkpoint("qwen3vl") / "config.json").read_text())
    path, runner = recipe(), InProcess()
    assert fit(path, runner, f"model_name_or_path={bare}", "--allow-bits") == commands.OK
    printed = capsys.readouterr()
    assert "GiB, computed" in printed.out and "samples/s" not in printed.out
    assert "nothing was measured and nothing is chosen" in " ".join(printed.err.split())
    assert runner.tried == [] and not (tmp_path / "recipe_fitted.yaml").exists()
    (bare / "config.json").unlink()
    assert fit(path, runner, f"model_name_or_path={bare}") == commands.REFUSED
    assert "has no config.json" in capsys.readouterr().err


def test_a_step_is_a_process_of_its_own(recipe: WriteRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medvl.fit.trying import devices, launch

    command = launch("medvl.fit.trial", Path("a"), Path("b"), 1)
    assert command == [sys.executable, "-m", "medvl.fit.trial", "a", "b"]
    monkeypatch.setitem(os.environ, "FORCE_TORCHRUN", "1")
    monkeypatch.setitem(os.environ, "NPROC_PER_NODE", "2")
    assert devices() == 2
    assert launch("medvl.fit.trial", Path("a"), Path("b"), 2)[:4] == [
        "torchrun",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]


def test_what_needs_more_than_a_setting_that_ran_out_is_not_tried() -> None:
    own = Setting(2, 4, True, False, None)
    tries = Tries(own, {}, [Tried(Setting(4, 2, True, True, 4), Measured(OUT_OF_MEMORY))])
    pruned = {
        Setting(4, 2, True, True, 4): True,
        Setting(8, 1, True, True, 4): True,
        Setting(4, 2, False, True, 4): True,
        Setting(4, 2, True, False, None): True,
        Setting(2, 4, False, False, None): False,  # a smaller micro-batch
    }
    assert {setting: tries.pruned(setting) is not None for setting in pruned} == pruned
    tries.tried.append(Tried(Setting(2, 4, True, True, 4), Measured(OK)))
    assert "more work per record" in str(tries.pruned(Setting(1, 8, True, True, 4)))
    tries.tried.append(Tried(Setting(1, 8, True, True, None), Measured(REFUSED_BY_TRAINING)))
    assert "refused as" in str(tries.pruned(Setting(2, 4, True, True, None)))


def test_candidates_train_the_same_records() -> None:
    own = Setting(4, 3, True, False, 4)
    found = candidates(own, fused=True, bits=[4, None], any_batch=True, above=False)
    assert found[0] == own and len(set(found)) == len(found) == 6 * 2 * 2 * 2
    assert {one.batch * one.accumulation for one in found} == {12}
    assert {one.batch for one in candidates(own, fused=False, bits=[4], any_batch=True, above=True)} == {4, 12}
    assert {one.batch for one in candidates(own, fused=False, bits=[4], any_batch=False, above=False)} == {4}


def test_a_setting_as_keys() -> None:
    recipe = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "quantization_bit": 4,
              "double_quantization": True, "medvl_loss_group": 2, "use_reentrant_gc": False}  # fmt: skip
    own = own_setting(recipe)
    assert own == Setting(4, 2, True, False, 4)
    assert changes(own, own, recipe) == {}
    fast = changes(Setting(2, 4, False, True, None), own, recipe)
    assert words(fast).split() == [
        *("per_device_train_batch_size=2", "gradient_accumulation_steps=4", "medvl_loss_group=0"),
        *("disable_gradient_checkpointing=true", "use_reentrant_gc=null", "enable_liger_kernel=true"),
        *("quantization_bit=null", "double_quantization=null"),
    ]
    assert applied(recipe, fast) == {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4,
                                     "medvl_loss_group": 0, "disable_gradient_checkpointing": True,
                                     "enable_liger_kernel": True}  # fmt: skip
    assert own_setting(applied(recipe, fast)) == Setting(2, 4, False, True, None)


def test_the_choice() -> None:
    def row(samples: float | None, gib: float, state: str = OK) -> Row:
        return Row(Setting(1, 1, True, False, None), state, samples_s=samples, gib=gib)

    fastest, near, small, wrong = row(10.0, 40), row(9.9, 20), row(9.0, 5), row(99.0, 1, "another loss")
    assert best([fastest, small, wrong]) is fastest
    assert best([fastest, near, small, wrong]) is near  # as fast, with less memory
    assert best([wrong, row(None, 1, OUT_OF_MEMORY)]) is None
