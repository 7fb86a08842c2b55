"""Who is asked how: run cards, profiles and routes; what is asked together."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from medvl.errors import UsageError
from medvl.factory.checks.adapter_fit import other_base
from medvl.factory.run_card import DataFile, Prompt, Quantization, RunCard, Vision, write_run_card
from medvl.instructions import Instruction, fingerprint_each
from medvl.predict.adapter_spec import AdapterSpec, differences
from medvl.predict.backends import in_process
from medvl.predict.plan import Request, ask, batches, remaining, route
from medvl.predict.questions import Question
from medvl.predict.setup import ModelOptions, find_adapters, read_setup
from medvl.profiles import GENERAL, Profiles, read_profiles
from medvl.router.chain import load_router
from medvl.router.route import Route
from medvl.sharegpt import file_sha256
from medvl.tasks import Task
from tests.support.records import a_card

PROFILES = read_profiles(None)


def adapter(folder: Path, card: RunCard | None = None, weights: bytes = b"w") -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(weights)
    if card:
        write_run_card(card, folder)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "internvl"}))
    return tmp_path / "base"


def card(base: Path, **changes: Any) -> RunCard:
    return a_card(model=msgspec.structs.replace(a_card().model, name_or_path=str(base)), **changes)


def question(number: int = 0, text: str = "How many?", images: tuple[Path, ...] = (), **changes: Any) -> Question:
    made = Question(
        f"q{number}", "d", text, "<image>\n" * len(images), images, True, None, None, Path("q.json"), number
    )
    return replace(made, **changes)


def asked(base: Path, task: str = "counting", profiles: Profiles = PROFILES, **changes: Any) -> Request:
    setup = read_setup({}, ModelOptions(str(base)))
    return ask(question(**changes), Route(task, 0.9, "rules"), profiles, lambda _: setup.base, setup.identity)


# --- What run cards say -----------------------------------------------------------------------------------------------


def test_everything_comes_from_the_run_card(base: Path, tmp_path: Path) -> None:
    stated = card(
        base,
        vision=Vision(2048 * 2048, 784, True, None, None, 12),
        prompt=Prompt("intern_vl", "Be careful.", None, "{question}", 4096),
        quantization=Quantization(4, "bnb", "nf4", True),
        data=[DataFile("e", "train", None, None, None, None, "norm1", "json", True)],
    )
    setup = read_setup({"detection": adapter(tmp_path / "a" / "detection", stated)}, ModelOptions())
    adapter_spec = setup["detection"]
    assert (setup.model, setup.template, setup.dtype, setup.quantization.bit) == (str(base), "intern_vl", "bfloat16", 4)
    assert setup.quantization.double_quantization
    assert (adapter_spec.system, adapter_spec.image_max_pixels, adapter_spec.image_min_pixels) == (
        "Be careful.",
        2048**2,
        784,
    )
    assert (adapter_spec.crop_to_patches, adapter_spec.max_tiles, adapter_spec.frame) == (True, 12, "norm1")
    assert setup.warnings == ()
    assert (setup.base.system, setup.base.image_max_pixels, setup.base.frame) == ("", 768**2, "norm1000")


def test_a_fully_trained_model_has_its_own_card(base: Path) -> None:
    write_run_card(card(base, prompt=Prompt("intern_vl", "Be careful.", None, "{question}", 4096)), base)
    setup = read_setup({}, ModelOptions(str(base)))
    assert (setup.base.system, setup.base.image_max_pixels, setup.dtype) == ("Be careful.", 50176, "bfloat16")
    assert setup.warnings == ()


def test_adapters_keep_budgets_and_prompts_of_their_own(base: Path, tmp_path: Path) -> None:
    folders = {
        name: adapter(tmp_path / name, card(base, vision=Vision(pixels, 784, False, None, None, None)))
        for name, pixels in (("detection", 2048**2), ("counting", 768**2))
    }
    setup = read_setup(folders, ModelOptions())
    assert [setup[name].image_max_pixels for name in folders] == [2048**2, 768**2]


def test_adapters_that_cannot_share_a_model_are_refused(base: Path, tmp_path: Path) -> None:
    folders = {
        "counting": adapter(tmp_path / "counting", card(base)),
        "detection": adapter(tmp_path / "detection", card(base, quantization=Quantization(4, "bnb", "nf4", False))),
    }
    with pytest.raises(UsageError, match="quantisation"):
        read_setup(folders, ModelOptions())


QLORA = Quantization(4, "bnb", "nf4", True)


@pytest.mark.parametrize(
    ("one", "other", "wanted", "expected"),
    [
        pytest.param((None, "bnb", "nf4", True), (None, "bnb", "nf4", False), None, None, id="kinds of none"),
        pytest.param((None, "bnb", "fp4", True), (None, "hqq", "nf4", False), None, None, id="all kinds of none"),
        pytest.param((None, "bnb", "nf4", True), (None, "bnb", "nf4", False), 0, None, id="none, stated"),
        pytest.param((4, "bnb", "nf4", True), (4, "bnb", "nf4", False), 0, None, id="none stated against both"),
        pytest.param((4, "bnb", "nf4", True), (None, "bnb", "nf4", False), 0, None, id="none stated against one"),
        pytest.param((4, "bnb", "nf4", True), (None, "bnb", "nf4", False), 4, QLORA, id="as one, stated"),
        pytest.param((8, "bnb", "nf4", True), (4, "bnb", "nf4", True), 4, QLORA, id="bits stated"),
        pytest.param((4, "bnb", "nf4", True), (None, "bnb", "nf4", True), None, UsageError, id="one of both"),
        pytest.param((4, "bnb", "nf4", True), (4, "bnb", "nf4", False), 4, UsageError, id="kinds of four bits"),
    ],
)
def test_only_what_quantisation_does_keeps_adapters_apart(
    base: Path, tmp_path: Path, one: Any, other: Any, wanted: int | None, expected: Any
) -> None:
    folders = {
        name: adapter(tmp_path / name, card(base, quantization=Quantization(*stated)))
        for name, stated in (("counting", one), ("detection", other))
    }
    if expected is UsageError:
        with pytest.raises(UsageError, match="quantisation"):
            read_setup(folders, ModelOptions(bits=wanted))
        return
    setup = read_setup(folders, ModelOptions(bits=wanted))
    assert setup.quantization == (expected or Quantization(None, "bnb", "nf4", False))
    changed = [
        name for name, stated in (("counting", one), ("detection", other)) if stated[0] != setup.quantization.bit
    ]
    assert [warning.partition(":")[0] for warning in setup.warnings] == changed, "each that was trained otherwise"


def test_one_base_model_has_many_spellings(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"counting": "base", "detection": f"{base}/", "regression": f"{base.parent}/x/../base"}
    (tmp_path / "x").mkdir()
    folders = {name: adapter(tmp_path / name, card(Path("b"))) for name in names}
    for name, spelled in names.items():
        stated = card(base)
        model = msgspec.structs.replace(stated.model, name_or_path=spelled)
        write_run_card(msgspec.structs.replace(stated, model=model), folders[name])
    assert read_setup(folders, ModelOptions()).model == str(base)


def test_without_a_card_the_defaults_are_said(base: Path, tmp_path: Path) -> None:
    setup = read_setup({"x": adapter(tmp_path / "x")}, ModelOptions(str(base)))
    assert (setup.template, setup.quantization.bit, setup.dtype) == ("intern_vl", None, "auto")
    assert ["no run card" in warning for warning in setup.warnings] == [True]
    with pytest.raises(UsageError, match="--model"):
        read_setup({"y": adapter(tmp_path / "y")}, ModelOptions())
    with pytest.raises(UsageError, match="--template"):
        read_setup({}, ModelOptions("some/model"))


@pytest.mark.parametrize(
    ("wanted", "bits", "warns"),
    [
        pytest.param(None, 4, False, id="as trained"),
        pytest.param(4, 4, False, id="stated alike"),
        pytest.param(0, None, True, id="not quantised"),
        pytest.param(8, 8, True, id="otherwise"),
    ],
)
def test_quantisation_other_than_in_training_is_said(
    base: Path, tmp_path: Path, wanted: int | None, bits: int | None, warns: bool
) -> None:
    folder = adapter(tmp_path / "x", card(base, quantization=Quantization(4, "bnb", "nf4", False)))
    setup = read_setup({"x": folder}, ModelOptions(bits=wanted))
    assert setup.quantization.bit == bits
    assert bool(setup.warnings) is warns


def test_changed_weights_under_the_same_path_are_noticed(base: Path, tmp_path: Path) -> None:
    folder, weights = adapter(tmp_path / "x"), base / "model.safetensors"
    weights.write_bytes(bytes(5 * 2**20))
    seen = [read_setup({"x": folder}, ModelOptions(str(base)))]
    for file, content in (
        (folder / "adapter_config.json", b'{"base_model_name_or_path": "/elsewhere"}'),
        (folder / "adapter_config.json", b'{"lora_alpha": 32}'),
        (folder / "adapter_model.safetensors", b"v"),
        (weights, bytes(3 * 2**20) + b"\1" * 2**20 + bytes(2**20)),
    ):
        file.write_bytes(content)
        seen.append(read_setup({"x": folder}, ModelOptions(str(base))))
    of_adapter, of_base = [setup["x"].identity for setup in seen], [setup.identity for setup in seen]
    assert [a != b for a, b in itertools.pairwise(of_adapter)] == [False, True, True, False]
    assert [a != b for a, b in itertools.pairwise(of_base)] == [False, False, False, True]
    (folder / "adapter_config.json").write_text("[")
    with pytest.raises(UsageError, match="adapter_config"):
        read_setup({"x": folder}, ModelOptions(str(base)))


@pytest.mark.parametrize(
    ("trained_on", "config", "refused"),
    [
        pytest.param("{base}", "that", False, id="the same folder"),
        pytest.param("{base}", "other", True, id="a folder whose config is another by now"),
        pytest.param("/moved/elsewhere", "that", False, id="the same config elsewhere"),
        pytest.param("/moved/elsewhere", "other", True, id="another config elsewhere"),
        pytest.param("{base}", None, False, id="a card that does not know"),
        pytest.param("Some/Model-8B", "other", True, id="a hub's model, another config"),
    ],
)
def test_adapters_of_another_base_model_are_refused(
    base: Path, tmp_path: Path, trained_on: str, config: str | None, refused: bool
) -> None:
    sha256 = {None: None, "that": file_sha256(base / "config.json"), "other": "00"}[config]
    model = msgspec.structs.replace(a_card().model, name_or_path=trained_on.format(base=base), config_sha256=sha256)
    folders = {"good": adapter(tmp_path / "good", card(base)), "x": adapter(tmp_path / "x", a_card(model=model))}
    if not refused:
        assert read_setup(folders, ModelOptions(str(base))).warnings == ()
        return
    with pytest.raises(UsageError, match=r"^x: trained on .*, whose config.json differs from that of") as refusal:
        read_setup(folders, ModelOptions(str(base)))
    assert trained_on.format(base=base) in str(refusal.value)


@pytest.mark.parametrize(
    ("adapters", "new", "merged", "refused"),
    [
        pytest.param(["a"], False, [], False, id="trained on"),
        pytest.param(["a"], True, [], True, id="a new one above"),
        pytest.param(["a"], True, ["a"], False, id="a new one above, merged again"),
        pytest.param(["a", "b"], False, [], True, id="the first of two is below"),
        pytest.param(["a", "b"], False, ["a"], False, id="the first of two, merged again"),
        pytest.param(["a", "b"], True, ["a"], True, id="one of two below"),
    ],
)
def test_an_adapter_above_others_is_refused_on_the_bare_base(
    base: Path, adapters: list[str], new: bool, merged: list[str], refused: bool
) -> None:
    model = msgspec.structs.replace(
        a_card().model, name_or_path=str(base), adapters=adapters, config_sha256=file_sha256(base / "config.json")
    )
    other = other_base(a_card(model=model, recipe={"create_new_adapter": new}), str(base), merged)
    assert ("merged into it" in (other or "")) is refused
    assert (other is None) is not refused


def test_of_models_on_a_hub_that_are_not_here_the_names_decide() -> None:
    stated = a_card(model=msgspec.structs.replace(a_card().model, name_or_path="Some/Model-4B", config_sha256="00"))
    assert other_base(stated, "Some/Model-4B") is None
    assert "trained on Some/Model-4B, not on Some/Model-8B" in (other_base(stated, "Some/Model-8B") or "")


@pytest.mark.parametrize("merged", [True, False], ids=["a merged model", "an adapter alone"])
def test_a_model_with_an_adapter_beside_it_is_refused(base: Path, merged: bool) -> None:
    (base / "adapter_config.json").write_text("{}")
    if not merged:
        (base / "config.json").unlink()
    with pytest.raises(UsageError, match="lie beside the model's" if merged else "give it as the adapter"):
        read_setup({}, ModelOptions(str(base), "intern_vl"))


def test_only_safetensors_are_loaded(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "detection")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(UsageError, match="safetensors"):
        find_adapters(["detection"], tmp_path)


def test_general_stands_in_for_adapters_that_are_missing(base: Path, tmp_path: Path) -> None:
    adapter(tmp_path / "a" / "general", card(base))
    adapter(tmp_path / "a" / "counting", card(base))
    profiles = [PROFILES[name] for name in ("counting", "detection")]
    backend_spec = in_process(profiles, ModelOptions(), tmp_path / "a", None)
    assert {name: adapter_spec.name for name, adapter_spec in backend_spec.serves.items()} == {
        "counting": "counting",
        "detection": GENERAL,
    }
    assert any("no adapter detection" in note for note in backend_spec.notes)


def test_missing_adapters_without_general_are_refused(base: Path, tmp_path: Path) -> None:
    adapter(tmp_path / "a" / "counting", card(base))
    with pytest.raises(UsageError, match=r"detection.*adapter: null"):
        in_process([PROFILES["counting"], PROFILES["detection"]], ModelOptions(), tmp_path / "a", None)
    by_base = replace(PROFILES["detection"], adapter=None)
    backend_spec = in_process([PROFILES["counting"], by_base], ModelOptions(), tmp_path / "a", None)
    assert backend_spec.serves["detection"].name is None


@pytest.mark.parametrize("general", [None, "everything"])
def test_general_may_be_another_adapter_or_the_base_model(base: Path, tmp_path: Path, general: str | None) -> None:
    for name in ("counting", "everything"):
        adapter(tmp_path / "a" / name, card(base))
    profiles = [PROFILES[name] for name in ("counting", "detection")]
    backend_spec = in_process(profiles, ModelOptions(), tmp_path / "a", None, general)
    assert backend_spec.serves["detection"].name == general
    assert any("answers in its place" in note for note in backend_spec.notes)


# --- Profiles against run cards ---------------------------------------------------------------------------------------

BOXES = Instruction("Boxes.")


def trained(base: Path, instructions: dict[str, str] | None, system: str = "", pixels: int = 768**2) -> AdapterSpec:
    data = DataFile("e", "train", None, None, None, None, "norm1000", "json", True, instructions)
    stated = card(
        base,
        data=[data],
        prompt=Prompt("intern_vl", system, None, "", 1),
        vision=Vision(pixels, 784, False, None, None, 1),
    )
    return AdapterSpec("x", Path("x"), "id", system, pixels, 784, False, 1, "norm1000", stated)


@pytest.mark.parametrize(
    ("profile", "instructions", "said"),
    [
        pytest.param({}, {}, "", id="verbatim in both"),
        pytest.param({"instruction": BOXES}, fingerprint_each({Task.DETECTION: BOXES}), "", id="the same"),
        pytest.param({"instruction": BOXES}, {}, "instruction", id="only asked"),
        pytest.param({}, fingerprint_each({Task.DETECTION: BOXES}), "instruction", id="only trained"),
        pytest.param(
            {"instruction": Instruction("Box.")}, fingerprint_each({Task.DETECTION: BOXES}), "instruction", id="other"
        ),
        pytest.param({}, fingerprint_each({Task.COUNTING: BOXES}), "", id="another task's"),
        pytest.param({"instruction": BOXES}, None, "instruction", id="not known"),
        pytest.param({}, None, "", id="not known, verbatim"),
        pytest.param({"system": ""}, {}, "", id="the same system prompt"),
        pytest.param({"system": "Think."}, {}, "system prompt 'Think.'", id="another system prompt"),
        pytest.param({"image_max_pixels": 768**2}, {}, "", id="the same budget"),
        pytest.param({"image_max_pixels": 1}, {}, "image_max_pixels 1", id="another budget"),
    ],
)
def test_a_profile_that_asks_otherwise_than_training_is_said(
    base: Path, profile: dict[str, Any], instructions: dict[str, str] | None, said: str
) -> None:
    found = differences(replace(PROFILES["detection"], **profile), trained(base, instructions))
    assert bool(found) is bool(said)
    assert said in "".join(found)


def test_general_asks_verbatim(base: Path) -> None:
    assert differences(PROFILES[GENERAL], trained(base, {})) == []
    assert differences(PROFILES[GENERAL], trained(base, fingerprint_each({Task.DETECTION: BOXES}))) != []


def test_a_profile_wins_over_the_run_card(base: Path) -> None:
    adapter_spec = trained(base, {}, "As trained.")
    for profile, system, pixels in (
        (PROFILES["counting"], "As trained.", 768**2),
        (replace(PROFILES["counting"], system="Mine.", image_max_pixels=99), "Mine.", 99),
    ):
        profiles = Profiles({**PROFILES.by_name, "counting": profile})
        item = ask(question(), Route("counting", 0.9, "rules"), profiles, lambda _: adapter_spec, "base")
        assert (item.system, item.image_max_pixels) == (system, pixels)


# --- Routes, prompts, fingerprints ------------------------------------------------------------------------------------


def test_prompts_are_those_of_training(base: Path) -> None:
    profile = replace(PROFILES["counting"], instruction=Instruction("A number."))
    profiles = Profiles({**PROFILES.by_name, "counting": profile})
    image = base / "p.png"
    assert asked(base, "counting", profiles, images=(image,)).prompt == "<image>\nHow many?\nA number."
    assert asked(base, "counting", profiles, images=(image,), head="<image>").prompt == "<image>\nHow many?\nA number."
    assert asked(base, "poetry", profiles, images=(image,), head="<image>").prompt == "<image>How many?"
    assert asked(base, GENERAL, profiles).prompt == "How many?"


def test_the_own_task_is_used_only_when_asked_for() -> None:
    asking = [question(text="How many cells are in this microscopic image?", task=Task.REGRESSION)]
    assert route(asking, load_router(None))[0].task == "counting"
    assert route(asking, load_router(None, trust_metadata=True), by_own_task=True)[0].task == "regression"
    assert route(asking, None)[0].task == GENERAL
    assert route(asking, None)[0].abstained


def test_the_fingerprint_is_of_everything_that_decides_an_answer(base: Path, tmp_path: Path) -> None:
    image = tmp_path / "p.png"
    Image.new("RGB", (8, 8)).save(image)
    first = asked(base, images=(image,))
    assert asked(base, images=(image,), number=5).fingerprint == first.fingerprint, "not of the id"
    counting = PROFILES["counting"]
    short = replace(counting, generation=replace(counting.generation, max_new_tokens=1))
    shorter = Profiles({**PROFILES.by_name, "counting": short})
    tidied = Profiles({**PROFILES.by_name, "counting": replace(counting, postprocess="number")})
    others = [
        asked(base, images=(image,), text="How many cells?"),
        asked(base, images=(image, image)),
        asked(base, "counting", shorter, images=(image,)),
    ]
    assert asked(base, "counting", tidied, images=(image,)).fingerprint == first.fingerprint, "the text is raw"
    Image.new("RGB", (80, 80), "red").save(image)
    others.append(asked(base, images=(image,)))
    (base / "config.json").write_text(json.dumps({"model_type": "internvl", "changed": True}))
    others.append(asked(base, images=(image,)))
    assert len({item.fingerprint for item in (first, *others)}) == 1 + len(others)


def test_another_adapter_is_another_fingerprint(base: Path, tmp_path: Path) -> None:
    prints = []
    for number, weights in enumerate((b"one", b"two")):
        setup = read_setup({"x": adapter(tmp_path / str(number), card(base), weights)}, ModelOptions())
        route_ = Route("counting", 0.9, "rules")
        prints.append(ask(question(), route_, PROFILES, lambda _, s=setup: s["x"], setup.identity).fingerprint)
    assert prints[0] != prints[1]


# --- What is asked together -------------------------------------------------------------------------------------------


def pairs(longest: Request) -> int:
    return 2


def test_batches_are_by_adapter_then_profile_then_length(base: Path) -> None:
    items = [
        asked(base, task, number=number, text="word " * length)
        for number, (task, length) in enumerate(
            [("counting", 10), ("detection", 50), ("counting", 90), ("detection", 5), ("counting", 40)]
        )
    ]
    planned = [[item.question.id for item in batch] for batch in batches(items, pairs)]
    assert planned == [["q2", "q4"], ["q0"], ["q1", "q3"]]
    assert batches(items[::-1], pairs) == batches(items, pairs), "the order of the questions does not matter"


def test_a_batch_is_as_large_as_its_longest_question_lets_it_be(base: Path) -> None:
    items = [asked(base, number=number, text="word " * (40 - number)) for number in range(6)]
    planned = batches(items, lambda longest: 1 if longest.question.id == "q0" else 4)
    assert [[item.question.id for item in batch] for batch in planned] == [["q0"], ["q1", "q2", "q3", "q4"], ["q5"]]


def test_what_remains_is_asked_in_the_batches_of_before(base: Path) -> None:
    items = [asked(base, number=number, text="word " * (9 - number)) for number in range(6)]
    planned = batches(items, pairs)

    def ids(batches: list[Any]) -> list[list[str]]:
        return [[item.question.id for item in batch] for batch in batches]

    assert ids(remaining(planned, {"q1", "q4", "q5"}, whole=True)) == [["q0", "q1"], ["q4", "q5"]]
    assert ids(remaining(planned, {"q1", "q4", "q5"}, whole=False)) == [["q1"], ["q4", "q5"]]
    assert remaining(planned, set(), whole=True) == remaining(planned, set(), whole=False) == []


def test_larger_images_come_first_unless_they_cost_the_same(base: Path, tmp_path: Path) -> None:
    paths = []
    for side in (64, 512):
        paths.append(tmp_path / f"{side}.png")
        Image.new("L", (side, side)).save(paths[-1])
    items = [asked(base, number=number, images=(path,)) for number, path in enumerate(paths)]
    assert [item.question.id for item in batches(items, pairs)[0]] == ["q1", "q0"]
    fixed = [replace(item, adapter_spec=replace(item.adapter_spec, max_tiles=1)) for item in items]
    assert [item.question.id for item in batches(fixed, pairs)[0]] == ["q0", "q1"]
