"""How a classifier is trained: the keys of `recipes/router/*.yaml`."""

import difflib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from medvl.yaml_files import read_yaml


@dataclass(frozen=True)
class TrainingOptions:
    """How a classifier is trained; the keys of `recipes/router/*.yaml`.

    Attributes:
        encoder: Folder or hub name of the question encoder; None: a small one from scratch.
        label_encoder: The same of the labels; None: as `encoder`.
        full: Fine-tune the encoders; otherwise they are frozen and the heads alone train (a matter of seconds).
        epochs: Passes over the questions.
        batch_size: Questions per step.
        learning_rate: Of the heads, and of everything from scratch.
        encoder_learning_rate: Of pretrained encoders, where `full`.
        focal_alpha: Weight of positives in the focal loss, negatives weigh 1 - alpha; -1: both 1.
        focal_gamma: How much less a question counts the better it is known already; 0: all the same.
        preset: mevlip allows `focal_alpha: 1`, which gives negatives no gradient at all.
        templates: Own questions for the tasks that have too few (missing), for every task (all), or none.
        written: Also train on the questions of `medvl.router.written`, but for those that it holds out.
        augment: Typos, lost and hidden words and other case in training questions.
        holdout: Share of wordings kept from training, for temperature, thresholds and the similarity gate.
        seed: Of everything.
    """

    encoder: str | None = None
    label_encoder: str | None = None
    full: bool = False
    epochs: int = 6
    batch_size: int = 32
    learning_rate: float = 1e-3
    encoder_learning_rate: float = 2e-5
    focal_alpha: float = -1.0
    focal_gamma: float = 1.0
    preset: Literal["mevlip"] | None = None
    templates: Literal["missing", "all", "none"] = "all"
    written: bool = True
    augment: bool = True
    holdout: float = 0.2
    seed: int = 0

    def problems(self) -> list[str]:
        """What is wrong with the options, one sentence each."""
        found = []
        if self.focal_alpha >= 1 and self.preset != "mevlip":
            found.append(
                f"focal_alpha: {self.focal_alpha} multiplies the loss of every negative by {1 - self.focal_alpha:g}, "
                "so the classifier says yes to all; use -1, or `preset: mevlip` to have ME-VLIP's setting all the same"
            )
        if self.preset not in (None, "mevlip"):
            found.append(f"preset: {self.preset!r}; the one preset is mevlip")
        if self.templates not in ("missing", "all", "none"):
            found.append(f"templates: {self.templates!r}; expected missing, all or none")
        if not 0 < self.holdout < 1:
            found.append(f"holdout: {self.holdout}; expected a share between 0 and 1: thresholds are fitted on it")
        positive = ("epochs", "batch_size", "learning_rate", "encoder_learning_rate")
        wrong = [name for name in positive if getattr(self, name) <= 0]
        found += [f"{name}: {getattr(self, name)}; expected more than 0" for name in wrong]
        if self.label_encoder and not self.encoder:
            found.append("label_encoder without encoder: name both, or neither for small ones from scratch")
        return found


def read_options(recipe: Path | None, **overrides: Any) -> TrainingOptions:
    """The options of a recipe, with those that are not None put over them.

    Raises:
        ValueError: no such file, an unknown key, a value of another type, or what `problems` says.
    """
    known = {field.name: field.type for field in fields(TrainingOptions)}
    options = TrainingOptions()
    for key, value in (read_yaml(recipe) if recipe else {}).items():
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(known)}"
            raise ValueError(f"{recipe}: unknown key {key!r}; {hint}")
        before = getattr(options, key)
        if isinstance(before, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if before is not None and type(value) is not type(before):
            raise ValueError(f"{recipe}: {key}: {value!r}; expected {type(before).__name__}")
        options = replace(options, **{key: value})
    options = replace(options, **{key: value for key, value in overrides.items() if value is not None})
    if problems := options.problems():
        raise ValueError("\n".join(f"{recipe or 'options'}: {problem}" for problem in problems))
    return options


def stated(options: TrainingOptions) -> dict[str, Any]:
    """The options as router.json keeps them; a folder's name alone, not where it lay."""
    values = asdict(options)
    for key in ("encoder", "label_encoder"):
        if values[key] and Path(values[key]).is_dir():
            values[key] = Path(values[key]).name
    return values
