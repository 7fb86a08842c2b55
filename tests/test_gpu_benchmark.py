"""benchmarks/gpu without a GPU: every kind of row once, the next call, and what a failed setting leaves."""

import importlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from medvl.factory.checks.adapter_fit import unloaded
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.training


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """The modules of benchmarks/gpu, as its scripts import them."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks" / "gpu"))

    def load(name: str) -> ModuleType:
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    return load


def row_of(code: str, **more: Any) -> dict[str, Any]:
    """A setting whose process runs `code`, with the row's path as argument."""
    return {"part": "p", "command": (sys.executable, "-c", code, "{out}"), "size": "tiny-qwen3vl"} | more


def writes(row: str) -> str:
    return f"import sys, pathlib; pathlib.Path(sys.argv[1]).write_text({row!r})"


WAITS = "import sys; print('ready'); sys.stdin.readline(); " + writes('{"figure": 1}')
TRAINED = (
    '{"records_per_step": 8, "step_s": 2.0, "fastest_s": 1.0, "slowest_s": 3.0, "samples_per_s": 4.0, '
    '"gib": 1.5, "losses": [2.0, 1.0]}'
)


def test_a_second_call_does_what_is_missing(
    gpu: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, settings = gpu("run"), gpu("settings")
    started = tmp_path / "started"
    fails = f"import sys; open({str(started)!r}, 'a').write('x'); sys.exit('no memory')"
    started.write_text("")
    listed = [
        settings.Setting(name="M: one", **row_of(writes(TRAINED))),
        settings.Setting(name="waits", waits=True, **row_of(WAITS)),
        settings.Setting(name="waits too", waits=True, **row_of(WAITS)),
        settings.Setting(name="fails", **row_of(fails)),
    ]
    monkeypatch.setattr(run, "PARTS", {"p": lambda where: listed})
    monkeypatch.setattr(run, "card_name", lambda: "a card")
    monkeypatch.setattr(run, "prepare", lambda args: settings.Where(tmp_path, True, tmp_path, "drawn", None))
    monkeypatch.setattr(run, "build", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["run.py", "--work", str(tmp_path)])
    assert run.main() == 1
    printed = capsys.readouterr()
    assert "| M: one | 8 | 2.00 (1.00 to 3.00) | 4.00 | 1.00 | 1.5 | 2.0000, 1.0000 |" in printed.out
    assert "no memory" in printed.err and '"figure": 1' in printed.out
    assert run.main() == 1
    rows = run.read(tmp_path / "rows.jsonl")
    assert [row["name"] for row in rows] == ["M: one", "waits", "waits too", "fails", "fails"]
    assert started.read_text() == "xx"
    monkeypatch.setattr(run, "card_name", lambda: "another card")
    monkeypatch.setattr(sys, "argv", ["run.py", "--work", str(tmp_path), "--minutes", "0"])
    assert run.main() == 3, "rows of another card do not count, and time is up"


def test_every_setting_has_a_name_of_its_own(gpu: Callable[[str], ModuleType], tmp_path: Path) -> None:
    settings = gpu("settings")
    for tiny in (True, False):
        where = settings.Where(tmp_path, tiny, tmp_path, "drawn", None)
        listed = [setting for part in settings.PARTS.values() for setting in part(where)]
        assert len({setting.name for setting in listed}) == len(listed)
        assert {setting.part for setting in listed} == set(settings.PARTS)
        recipes = {json.loads(s.command[-1])["recipe"] for s in listed if s.command[-1].startswith('{"recipe')}
        assert recipes and all((REPOSITORY / recipe).is_file() for recipe in recipes)


def test_stock_llama_factory_gets_none_of_our_keys(
    gpu: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, recipe = gpu("train"), REPOSITORY / "recipes" / "flare_internvl3_8b_qlora.yaml"
    ours = train.arguments(recipe, {"quantization_bit": None}, str(tmp_path))
    assert ours["medvl_run_card"] and not {key for key in ours if "quantization" in key}
    monkeypatch.setenv("MEDVL_DISABLE", "1")
    stock = train.arguments(recipe, {}, str(tmp_path))
    assert stock["quantization_bit"] == 4 and not {key for key in stock if key.startswith("medvl")}


def test_a_recipe_becomes_a_row(
    gpu: Callable[[str], ModuleType], tiny_recipe: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe("internvl3", gradient_accumulation_steps=2)))
    row = gpu("train").measure({"recipe": str(recipe), "set": {"max_steps": 3}})
    assert row["records_per_step"] == 4 and len(row["losses"]) == 3
    assert row["samples_per_s"] == pytest.approx(4 / row["step_s"]) and row["gib"] > 0


@pytest.mark.parametrize("size", ["tiny-qwen3vl", "tiny-internvl3"])
def test_checkpoints_and_their_adapters_load(gpu: Callable[[str], ModuleType], size: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    base = gpu("checkpoints").build(size, tmp_path, None, ["one", "two"])
    assert AutoProcessor.from_pretrained(base).image_processor is not None
    model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), tmp_path / "adapters" / "two")
    assert not unloaded(model, tmp_path / "adapters" / "two", "default")


def test_nothing_goes_on_when_the_benchmark_is_stopped(
    gpu: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting that runs, what it started, and the next one, which waits."""
    run, settings = gpu("run"), gpu("settings")
    sleeps = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    processes: dict[str, Any] = {}
    where = settings.Where(tmp_path, True, tmp_path, "drawn", None)
    first = settings.Setting(name="sleeps", **row_of(sleeps))
    second = settings.Setting(name="waits", waits=True, **row_of(WAITS))

    def interrupted(self: Any, *_: Any, **__: Any) -> None:
        stopped.append(self)
        raise KeyboardInterrupt

    stopped: list[Any] = []
    monkeypatch.setattr(run.subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.measure(first, [second], processes, where)
    assert stopped[0].returncode == -9
    run.end(processes["waits"])
    assert processes["waits"].returncode == -9
    run.end(processes["waits"])  # has ended already


def test_a_setting_whose_starter_has_ended_is_not_measured(
    gpu: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = gpu("train")
    monkeypatch.setattr(train, "measure", lambda _: pytest.fail("measured"))
    monkeypatch.setattr(sys, "argv", ["train.py", "{}"])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    train.main()
