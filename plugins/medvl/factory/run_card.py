"""The run card: what a model was trained with, so that prediction can use the same.

`medvl_run_card.json` lies beside the adapter (or the model) and in every checkpoint of a run whose recipe sets
`medvl_run_card: true`. Importable without torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from medvl.sharegpt import write_atomic

FILE_NAME = "medvl_run_card.json"
SCHEMA = 1


class Model(msgspec.Struct, frozen=True):
    """The checkpoint that training started from.

    `config_sha256` is the hash of its config.json (not of the weights), `commit` the revision in the Hugging Face
    cache; both None when the file is in neither place.
    """

    name_or_path: str
    adapters: list[str]
    revision: str
    config_sha256: str | None
    commit: str | None


class Vision(msgspec.Struct, frozen=True):
    """What turns an image into tokens; pixels count the whole area.

    LLaMA-Factory resizes first, by `image_max_pixels` and `image_min_pixels`, then the checkpoint's own image processor
    within `processor_min_pixels` and `processor_max_pixels` (Qwen family; None for others). `max_tiles` is what
    `crop_to_patches` came to: a checkpoint whose own preprocessor config asks for tiles gets them even under
    `crop_to_patches: false`; None for models without tiles.
    """

    image_max_pixels: int
    image_min_pixels: int
    crop_to_patches: bool
    processor_min_pixels: int | None
    processor_max_pixels: int | None
    max_tiles: int | None


class Prompt(msgspec.Struct, frozen=True):
    """What stands around a question.

    `system` is the text that the template really renders for records without a system message of their own, not what
    the recipe leaves unset (the template `intern_vl` brings a Chinese one). `rendered` is the whole text around
    `{question}` up to the first answer token, for a comparison byte by byte.
    """

    template: str | None
    system: str
    enable_thinking: bool | None
    rendered: str
    cutoff_len: int


class Quantization(msgspec.Struct, frozen=True):
    """On-the-fly quantisation of the base model; `bit` is None when there was none."""

    bit: int | None
    method: str
    type: str
    double_quantization: bool


class TrainedPart(msgspec.Struct, frozen=True):
    """The trained weights of one part of the model: "language model", "vision tower", "projector", "other".

    `modules` are the kinds of modules that hold them, e.g. `q_proj`; `tensors` and `parameters` are counts.
    """

    part: str
    modules: list[str]
    tensors: int
    parameters: int


class Finetuning(msgspec.Struct, frozen=True):
    """Which weights were trained; the lora fields are None for other methods.

    `lora_target` and the freeze flags are what the recipe says, `trained` is what came of it; empty in cards of earlier
    versions.
    """

    type: str
    lora_rank: int | None
    lora_alpha: int | None
    lora_dropout: float | None
    lora_target: list[str] | None
    freeze_vision_tower: bool
    freeze_multi_modal_projector: bool
    freeze_language_model: bool
    trainable_parameters: int
    trained: list[TrainedPart] = msgspec.field(default_factory=list)


class Training(msgspec.Struct, frozen=True):
    """How the weights were trained; `batch_size` is the number of records per optimiser step over all devices.

    `without_gradients` are the frozen parts that no gradient passes through; empty in cards of earlier versions.
    `loss_group` is the number of records over whose tokens the loss was averaged: the micro-batch, unless
    `medvl_loss_group` said another. The last three are None in cards of earlier versions.
    """

    batch_size: int
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    learning_rate: float
    lr_scheduler_type: str
    num_train_epochs: float
    max_steps: int
    seed: int
    dtype: str
    deepspeed: str | None
    without_gradients: list[str] = msgspec.field(default_factory=list)
    gradient_checkpointing: bool | None = None
    fused_loss: bool | None = None
    loss_group: int | None = None


class DataFile(msgspec.Struct, frozen=True):
    """One file of a data set named in the recipe.

    `frame`, `box_style` and `instructions` (task -> fingerprint of what its questions say about the answer's form) come
    from the manifest.json that the preprocessor wrote beside the file; None without one. `manifest_matches` is False
    when the file has changed since.
    """

    entry: str
    role: str
    path: str | None
    sha256: str | None
    records: int | None
    num_samples: int | None
    frame: str | None
    box_style: str | None
    manifest_matches: bool | None
    instructions: dict[str, str] | None = None


class Run(msgspec.Struct, frozen=True):
    """What happened.

    `final_loss` is the last logged one, `mean_loss` the trainer's mean over all steps (None for a resumed run, where
    the trainer divides the loss of the last part by all steps). `seconds` counts this process, not the parts before.
    `restored_best` is the checkpoint whose weights were put back at the end (`load_best_model_at_end`), else None.
    `peak_gpu_gib` is the most GPU memory that this process had in use at a time, GiB; None without a GPU.
    `steps` were done of `planned_steps` (None in cards of earlier versions); `ended_early` says why a finished run did
    fewer. `resumed_with_changes` lists in what a resumed run (`medvl_resume_anyway`) differs from its beginning.
    """

    started: str
    ended: str
    seconds: float
    steps: int
    epoch: float | None
    final_loss: float | None
    mean_loss: float | None
    resumed_from: str | None
    restored_best: str | None
    world_size: int
    gpu: str | None
    planned_steps: int | None = None
    ended_early: str | None = None
    resumed_with_changes: list[str] = msgspec.field(default_factory=list)
    peak_gpu_gib: float | None = None


class RunCard(msgspec.Struct, frozen=True):
    """Everything above; `recipe` holds each key the user set, with the value LLaMA-Factory parsed, secrets removed."""

    schema: int
    model: Model
    vision: Vision
    prompt: Prompt
    quantization: Quantization
    finetuning: Finetuning
    training: Training
    recipe: dict[str, Any]
    data: list[DataFile]
    versions: dict[str, str | None]
    git_revision: str | None
    run: Run


def read_run_card(path: Path) -> RunCard:
    """Read a run card from its file or from the folder it lies in.

    Raises FileNotFoundError when there is none, ValueError when it is damaged or of another schema.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no run card; train with `medvl_run_card: true` in the recipe")
    content = file.read_bytes()
    try:
        schema = msgspec.json.decode(content, type=dict[str, Any]).get("schema")
        if schema != SCHEMA:
            raise ValueError(
                f"{file}: run card of schema {schema}, this medvl reads {SCHEMA}; update the older of the two"
            )
        return msgspec.json.decode(content, type=RunCard)
    except msgspec.DecodeError as error:
        raise ValueError(f"{file}: not a run card: {error}") from error


def find_run_card(path: Path) -> RunCard | None:
    """As `read_run_card`, but None when there is none."""
    try:
        return read_run_card(path)
    except FileNotFoundError:
        return None


def write_run_card(card: RunCard, folder: Path) -> Path:
    """Write the card into a folder, so that readers see the old file or the new one and never a part."""
    file = folder / FILE_NAME
    write_atomic(file, msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")
    return file
