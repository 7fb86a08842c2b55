"""The hook and the recipe parser, without training: what is extended, what is refused, and that nothing ever raises."""

import logging
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points, version
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("llamafactory")
import llamafactory.train.tuner
from llamafactory.chat import hf_engine
from llamafactory.hparams import FinetuningArguments, parser
from llamafactory.train.sft import workflow

from medvl.factory import arguments, hook, parsing
from medvl.factory.trainer import TrainerFactory

pytestmark = pytest.mark.training

Recipe = Callable[..., dict[str, Any]]
PARSER, WORKFLOW, ENGINE, LOADER = hook.TARGETS


@pytest.fixture
def fresh_state(monkeypatch: pytest.MonkeyPatch) -> hook.HookState:
    """A hook that has done nothing yet."""
    state = hook.HookState()
    monkeypatch.setattr(hook, "STATE", state)
    return state


def test_modules_are_extended_by_import_torch_alone() -> None:
    assert hook.STATE.called and not hook.STATE.disabled
    assert hook.STATE.extended == set(hook.TARGETS)
    assert hook.STATE.failures == {}


def test_names_that_medvl_needs_from_the_pinned_llamafactory() -> None:
    """A new LLaMA-Factory version starts here: these names, and nothing else of it, are replaced or read."""
    assert version("llamafactory") == "0.9.5"
    for name in ("_TRAIN_ARGS", "_INFER_ARGS", "_EVAL_ARGS"):
        names = [cls.__name__ for cls in getattr(parser, name)]
        assert "RecipeArguments" in names and "FinetuningArguments" not in names
    assert issubclass(parser.HfArgumentParser, parsing.RecipeParser)
    assert isinstance(workflow.CustomSeq2SeqTrainer, TrainerFactory)
    assert workflow.CustomSeq2SeqTrainer.stock.__name__ == "CustomSeq2SeqTrainer"
    assert "CustomSeq2SeqTrainer" in workflow.run_sft.__code__.co_names
    for name in ("_get_grad_norm", "_load_best_model"):
        assert callable(getattr(workflow.CustomSeq2SeqTrainer.stock, name))
    assert hf_engine.HuggingfaceEngine.tells_token_types
    for name in ("_chat", "_stream_chat"):
        assert "_process_args" in getattr(hf_engine.HuggingfaceEngine, name).__wrapped__.__code__.co_names


def test_entry_point_is_installed() -> None:
    (ours,) = [point for point in entry_points(group="torch.backends") if point.name == "medvl"]
    assert ours.load() is hook.autoload


def third_party_modules(code: str) -> set[str]:
    """Top-level names outside the standard library that a fresh Python has loaded after running `code`."""
    listing = "print(*{name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    command = [sys.executable, "-c", f"import sys; {code}; {listing}"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_hook_imports_the_standard_library_only() -> None:
    # Other packages' .pth files load modules at start-up; the difference is the hook's.
    loaded = third_party_modules("import medvl.factory.hook as hook; hook.autoload()") - third_party_modules("pass")
    assert loaded == {"medvl"}


@pytest.mark.parametrize("module", ["run_card", "fingerprints", "arguments", "hook"])
def test_what_prediction_and_doctor_read_needs_no_torch(module: str) -> None:
    code = f"import sys, medvl.factory.{module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", [PARSER, WORKFLOW, ENGINE])
def test_renamed_module_is_logged_and_left_alone(
    name: str, fresh_state: hook.HookState, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = ModuleType(name)
    with caplog.at_level(logging.WARNING, logger="medvl"):
        hook.extend(name, upstream)
    assert "has no attribute" in fresh_state.failures[name]
    assert fresh_state.extended == set()
    assert f"{name} could not be extended" in caplog.text
    assert not hasattr(upstream, "CustomSeq2SeqTrainer") and not hasattr(upstream, "HfArgumentParser")


def test_moved_argument_class_changes_nothing(fresh_state: hook.HookState) -> None:
    upstream = ModuleType(PARSER)
    upstream.__dict__.update(
        FinetuningArguments=type("FinetuningArguments", (), {}), _TRAIN_ARGS=[int], _INFER_ARGS=[], _EVAL_ARGS=[],
        HfArgumentParser=parsing.HfArgumentParser,
    )  # fmt: skip
    hook.extend(PARSER, upstream)
    assert "FinetuningArguments is not in" in fresh_state.failures[PARSER]
    assert not upstream._INFER_ARGS and upstream._TRAIN_ARGS[0] is int
    assert upstream.HfArgumentParser is parsing.HfArgumentParser


def test_autoload_never_raises(
    fresh_state: hook.HookState, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hook.sys, "meta_path", None)
    hook.autoload()
    monkeypatch.undo()
    assert "TypeError" in fresh_state.failures["start-up"]
    assert "medvl is inactive" in caplog.text


@pytest.mark.parametrize(("value", "off"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_off_switch(value: str, off: bool, fresh_state: hook.HookState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDVL_DISABLE", value)
    monkeypatch.setattr(hook.sys, "meta_path", [])
    hook.autoload()
    assert fresh_state.disabled is off
    assert (hook.sys.meta_path == []) is off
    assert (fresh_state.extended == set()) is off


def test_without_the_hook_a_medvl_key_is_refused_as_unknown(
    tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = [FinetuningArguments if issubclass(cls, FinetuningArguments) else cls for cls in parser._TRAIN_ARGS]
    monkeypatch.setattr(parser, "_TRAIN_ARGS", stock)
    monkeypatch.setattr(parser, "HfArgumentParser", parsing.HfArgumentParser)
    with pytest.raises(ValueError, match=r"keys are not used by the HfArgumentParser: \['medvl_run_card'\]"):
        parser.get_train_args(tiny_recipe("qwen3vl", medvl_run_card=True))


def test_calling_autoload_twice_adds_one_finder(fresh_state: hook.HookState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook.sys, "meta_path", [])
    hook.autoload()
    hook.autoload()
    assert len(hook.sys.meta_path) == 1


def test_module_that_imports_torch_itself_is_extended_once_it_has_run(
    fresh_state: hook.HookState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`import llamafactory.train.sft.workflow` as the first import: autoload is called while the module runs."""
    module = ModuleType(WORKFLOW)
    module.__spec__ = ModuleSpec(WORKFLOW, None)
    module.__spec__._initializing = True  # type: ignore[attr-defined]
    monkeypatch.setitem(hook.sys.modules, WORKFLOW, module)
    hook.autoload()
    assert WORKFLOW not in fresh_state.extended and WORKFLOW not in fresh_state.failures
    module.CustomSeq2SeqTrainer = dict  # type: ignore[attr-defined]
    module.__spec__._initializing = False  # type: ignore[attr-defined]
    hook.extend_loaded()
    assert isinstance(module.CustomSeq2SeqTrainer, TrainerFactory)  # type: ignore[attr-defined]


def test_factory_returns_the_stock_trainer_for_arguments_parsed_without_medvl() -> None:
    assert TrainerFactory(dict)(finetuning_args=None) == {"finetuning_args": None}


def test_help_lists_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        llamafactory.train.tuner.run_exp(["--help"])
    printed = capsys.readouterr().out
    for key in arguments.defaults():
        assert f"--{key}" in printed
    assert "medvl_run_card.json" in printed


def test_key_as_command_line_flag(tiny_recipe: Recipe) -> None:
    flags = ["--model_name_or_path", "m", "--output_dir", "o", "--use_cpu", "--medvl_run_card", "true"]
    *_, finetuning, _ = parser._parse_train_args(flags)
    assert finetuning.medvl_run_card is True
    assert finetuning.medvl_recipe.keys == ("model_name_or_path", "output_dir", "use_cpu", "medvl_run_card")


UNKNOWN = {
    "medvl_run_crad": "did you mean `medvl_run_card`",
    "medvl_": "did you mean `medvl_run_card`",
    "lora_rnak": r"not used by the HfArgumentParser: \['lora_rnak'\]",
}


@pytest.mark.parametrize(("key", "message"), UNKNOWN.items(), ids=UNKNOWN)
def test_unknown_key_is_refused(key: str, message: str, tiny_recipe: Recipe) -> None:
    with pytest.raises(ValueError, match=message):
        parser.get_train_args(tiny_recipe("qwen3vl", **{key: True}))


def test_misspelt_medvl_key_is_refused_even_where_llamafactory_ignores_unknown_keys(
    tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLOW_EXTRA_ARGS", "1")
    parser.get_train_args(tiny_recipe("qwen3vl", lora_rnak=8))
    with pytest.raises(ValueError, match="did you mean"):
        parser.get_train_args(tiny_recipe("qwen3vl", medvl_run_crad=True))


EXCLUSIVE = {
    "another stage": ({"stage": "pt"}, "only `stage: sft`"),
    "another trainer": ({"use_hyper_parallel": True}, "use_hyper_parallel"),
}


@pytest.mark.parametrize(("settings", "message"), EXCLUSIVE.values(), ids=EXCLUSIVE)
def test_settings_that_would_train_without_the_key_are_refused(
    settings: dict[str, Any], message: str, tiny_recipe: Recipe
) -> None:
    parser.get_train_args(tiny_recipe("qwen3vl", **settings))
    with pytest.raises(ValueError, match=message):
        parser.get_train_args(tiny_recipe("qwen3vl", medvl_run_card=True, **settings))


def test_export_and_chat_accept_the_keys_of_a_recipe(tiny_recipe: Recipe) -> None:
    keep = {"model_name_or_path", "template", "finetuning_type", "default_system", "image_max_pixels"}
    recipe = {key: value for key, value in tiny_recipe("qwen3vl").items() if key in keep}
    *_, finetuning, _ = parser.get_infer_args(recipe | {"medvl_run_card": True, "export_dir": "merged"})
    assert finetuning.medvl_run_card is True


def test_keys_stay_out_of_llamafactorys_own_dumps_when_unset(tiny_recipe: Recipe) -> None:
    *_, finetuning, _ = parser.get_train_args(tiny_recipe("qwen3vl"))
    dumped = finetuning.to_dict()
    assert dumped["medvl_run_card"] is False
    assert "medvl_recipe" not in dumped
