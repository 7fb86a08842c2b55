"""How one base model is loaded with its adapters on top: as their run cards agree, or as the user states.

What an option states wins over the cards, and a difference is a warning: whoever asks otherwise than the model was
trained should know it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from medvl.boxes import Frame
from medvl.errors import UsageError
from medvl.factory.checks.adapter_fit import other_base
from medvl.factory.checks.folders import CONFIG, WEIGHTS, adapter_beside
from medvl.factory.families import FAMILIES
from medvl.factory.run_card import Quantization, RunCard, find_run_card
from medvl.instructions import GENERAL
from medvl.predict.adapter_spec import AdapterSpec, as_trained
from medvl.predict.identity import adapter_identity, model_identity

_T = TypeVar("_T")
_NOT_QUANTISED = Quantization(bit=None, method="bnb", type="nf4", double_quantization=False)


@dataclass(frozen=True)
class Setup:
    """What is loaded once, and the adapters on top of it.

    Attributes:
        model: Folder or hub name of the base model.
        identity: Changes whenever its weights do, as far as names, sizes and samples tell.
        template: LLaMA-Factory's name of the prompt's form.
        enable_thinking: LLaMA-Factory's key of that name.
        quantization: On-the-fly quantisation.
        dtype: auto, bfloat16, float16 or float32.
        base: The base model without an adapter.
        adapters: Name -> adapter.
        warnings: Where asking differs from training.
    """

    model: str
    identity: str
    template: str
    enable_thinking: bool | None
    quantization: Quantization
    dtype: str
    base: AdapterSpec
    adapters: Mapping[str, AdapterSpec]
    warnings: tuple[str, ...]

    def __getitem__(self, name: str | None) -> AdapterSpec:
        """The adapter of that name; the base model for None."""
        return self.base if name is None else self.adapters[name]


@dataclass(frozen=True)
class ModelOptions:
    """What the user stated; None takes it from the run cards.

    Attributes:
        model: Folder or hub name of the base model.
        template: LLaMA-Factory's name of the prompt's form.
        bits: 4 or 8 quantises to so many bits, 0 does not quantise.
        dtype: Type of the weights that are not quantised.
        frame: Frame of the boxes in answers.
    """

    model: str | None = None
    template: str | None = None
    bits: int | None = None
    dtype: str | None = None
    frame: Frame | None = None


def find_adapters(names: Iterable[str], folder: Path, general: str | None = GENERAL) -> dict[str, Path]:
    """Where each of the adapters lies that profiles name: in `folder`, or at the path that the name is.

    One that is not there is left out, as `general` answers in its place (None: the base model).

    Raises:
        UsageError: an adapter is not there, and neither is `general`; or one is no LoRA adapter in safetensors.
    """
    names = dict.fromkeys(names)
    found = {name: checked(place) for name in names if (place := _place(name, folder))}
    missing = [name for name in names if name not in found]
    if missing and general is not None and general not in found:
        place = _place(general, folder)
        if place is None:
            raise UsageError(
                f"{folder}: no adapter {', '.join(missing)}, and no {general} in their place; train them, or write "
                "`adapter: null` into their profiles to ask the base model"
            )
        found[general] = checked(place)
    return found


def _place(name: str, folder: Path) -> Path | None:
    return next((place for place in (folder / name, Path(name)) if (place / CONFIG).is_file()), None)


def checked(folder: Path) -> Path:
    """The folder, if it holds an adapter that can be loaded without running code from it.

    Raises:
        UsageError: it does not.
    """
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise UsageError(f"{folder}: no {file} in it; a LoRA adapter in safetensors is expected")
    return folder


def read_setup(adapters: Mapping[str, Path], options: ModelOptions) -> Setup:
    """How to load and ask the base model and its adapters.

    Raises:
        UsageError: adapters that cannot share one base model, or were trained on another; a model's folder with an
            adapter in it; or something that neither a run card nor an option tells.
        ValueError: a damaged run card.
    """
    cards = {name: find_run_card(folder) for name, folder in adapters.items()}
    own = find_run_card(Path(options.model)) if options.model else None
    # A base model's own card says how it was trained before the adapters were.
    known = {name: card for name, card in cards.items() if card} or ({"the model": own} if own else {})
    model = options.model or _agreed("base model", {name: _spelled(card) for name, card in known.items()})
    if model is None:
        raise UsageError("--model is missing, and no adapter has a run card that names it")
    if beside := adapter_beside(model):
        raise UsageError(f"--model {beside}")
    check_base(cards, model)
    quantization = _quantization({name: card.quantization for name, card in known.items()}, options.bits)
    warnings = [
        f"{name}: no run card beside it, so it is asked with LLaMA-Factory's defaults; train with medvl_run_card: true"
        for name, card in (cards or {model: own}).items()
        if card is None
    ]
    warnings += [
        f"{name}: trained with {trained or 'no'} bits of quantisation, asked with {quantization.bit or 'no'}"
        for name, card in known.items()
        if (trained := card.quantization.bit) != quantization.bit
    ]
    identity = model_identity(model)
    return Setup(
        model=model,
        identity=identity,
        template=options.template
        or _agreed("template", {name: card.prompt.template for name, card in known.items()})
        or _template_of(model),
        enable_thinking=_agreed("thinking", {name: card.prompt.enable_thinking for name, card in known.items()}),
        quantization=quantization,
        dtype=options.dtype or _agreed("dtype", {name: card.training.dtype for name, card in known.items()}) or "auto",
        base=as_trained(None, None, identity, own, options.frame),
        adapters={
            name: as_trained(name, folder, adapter_identity(folder), cards[name], options.frame)
            for name, folder in adapters.items()
        },
        warnings=tuple(warnings),
    )


def _agreed(what: str, stated: Mapping[str, _T]) -> _T | None:
    """What all run cards state; None if there are none."""
    found: dict[str, list[str]] = {}
    for name, value in stated.items():
        found.setdefault(repr(value), []).append(name)
    if len(found) > 1:
        parts = "; ".join(f"{', '.join(names)}: {value}" for value, names in found.items())
        raise UsageError(f"adapters with different {what} cannot share one loaded model ({parts}); predict them apart")
    return next(iter(stated.values()), None)


def _quantization(trained: Mapping[str, Quantization], bits: int | None) -> Quantization:
    """How the base model is quantised: as its adapters were trained, or to the stated bits; 0 for not at all.

    Its kind decides nothing where there is none, so adapters that differ in that alone share a model.
    """
    if bits == 0:
        return _NOT_QUANTISED
    quantised = {name: stated for name, stated in trained.items() if stated.bit is not None}
    if bits is not None:
        kinds = {name: msgspec.structs.replace(stated, bit=bits) for name, stated in quantised.items()}
        return _agreed("quantisation", kinds) or msgspec.structs.replace(_NOT_QUANTISED, bit=bits)
    return _agreed("quantisation", {name: quantised.get(name, _NOT_QUANTISED) for name in trained}) or _NOT_QUANTISED


def _spelled(card: RunCard) -> str:
    """The base model as its run card names it; a folder by its one absolute name."""
    name = card.model.name_or_path
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _template_of(model: str) -> str:
    config = Path(model) / "config.json"
    family = json.loads(config.read_bytes()).get("model_type") if config.is_file() else None
    if family not in FAMILIES:
        raise UsageError(f"{model}: no run card tells the prompt template; name it with --template, e.g. intern_vl")
    return FAMILIES[family].templates[0]


def check_base(cards: Mapping[str, RunCard | None], model: str) -> None:
    """Raise UsageError for adapters whose run card names another base model."""
    wrong = [f"{name}: {other}" for name, card in cards.items() if card and (other := other_base(card, model))]
    if wrong:
        raise UsageError("\n".join(wrong))
