"""The table of keys that nothing reads unless another key says so, as LLaMA-Factory 0.9.5 and transformers have them.

What depends on the data (`video_…`, `tool_format`) or the machine (`ddp_…`) is not in it; what depends on the model is
in model.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from medvl.factory.recipe import Recipe

Condition = Callable[[Recipe], bool]


@dataclass(frozen=True)
class Need:
    """Keys, and what must hold for anything to read them.

    Attributes:
        keys: Names; one that ends in `_` stands for all keys that begin so.
        met: Whether that holds.
        cure: The setting under which it holds, in words that follow "without".
        switch: The key that decides it. A recipe that writes it, and off, keeps the others on purpose.
        chosen: Whether any other choice for the switch is on purpose too: `finetuning_type=full` on the command line of
            a LoRA recipe, where lora_rank cannot be taken away.
        always: Whether the keys are of prediction, export and chat too, not of training alone.
        refused: False for keys that wait for another use of the same recipe, or that are meant to be overruled.
    """

    keys: tuple[str, ...]
    met: Condition
    cure: str
    switch: str = ""
    always: bool = False
    refused: bool = True
    chosen: bool = False


def _on(key: str) -> Condition:
    return lambda recipe: bool(recipe.value(key))


def _is(key: str, *values: str) -> Condition:
    return lambda recipe: recipe.word(key) in values


def _evaluates(recipe: Recipe) -> bool:
    asked = any(recipe.value(key) for key in ("do_eval", "do_predict", "predict_with_generate", "grounding_eval_steps"))
    return asked or recipe.word("eval_strategy") != "no"


def _needs_best(recipe: Recipe) -> bool:
    if recipe.value("load_best_model_at_end") or recipe.value("early_stopping_steps"):
        return True
    return recipe.word("save_strategy") == "best" or recipe.word("lr_scheduler_type") == "reduce_lr_on_plateau"


def _four_bits(recipe: Recipe) -> bool:
    return recipe.value("quantization_bit") == 4 and _is("quantization_method", "bnb")(recipe)


def _many_sets(recipe: Recipe) -> bool:
    return len(recipe.value("dataset") or ()) > 1 or len(recipe.value("eval_dataset") or ()) > 1


def _reference_model(recipe: Recipe) -> bool:
    return _is("stage", "dpo", "kto", "ppo")(recipe) or bool(recipe.value("use_asft_loss"))


_QUANTISED = ("quantization_method", "quantization_type", "double_quantization", "quantization_device_map")
_GENERATION = (
    *("do_sample", "temperature", "top_p", "top_k", "num_beams", "max_length", "max_new_tokens", "repetition_penalty"),
    *("length_penalty", "skip_special_tokens", "eval_num_beams"),
    *("generation_max_length", "generation_num_beams", "generation_config"),
)
_GENERATES = "`do_predict: true` and `predict_with_generate: true`"
_GC = "`gradient_checkpointing: true`"

NEEDS: tuple[Need, ...] = (
    # The model
    Need(_QUANTISED, _on("quantization_bit"), "`quantization_bit: 4`", "quantization_bit", always=True),
    Need(
        ("quantization_type", "double_quantization"),
        lambda recipe: not recipe.value("quantization_bit") or _four_bits(recipe),
        "`quantization_bit: 4` and `quantization_method: bnb`",
        always=True,
    ),
    Need(
        ("init_special_tokens",),
        lambda recipe: bool(recipe.value("add_special_tokens") or recipe.value("new_special_tokens_config")),
        "`add_special_tokens` or `new_special_tokens_config`",
        always=True,
    ),
    Need(("adapter_folder",), _on("adapter_name_or_path"), "`adapter_name_or_path`", "adapter_name_or_path", True),
    Need(("create_new_adapter",), _on("adapter_name_or_path"), "`adapter_name_or_path`", "adapter_name_or_path"),
    Need(
        ("use_reentrant_gc", "use_unsloth_gc"),
        lambda recipe: not recipe.value("disable_gradient_checkpointing"),
        "gradient checkpointing, which `disable_gradient_checkpointing: true` switches off",
    ),
    Need(("infer_dtype",), lambda _: False, "`llamafactory-cli chat`, `api` or `export`; training takes `bf16: true`"),
    Need(("vllm_",), _is("infer_backend", "vllm"), "`infer_backend: vllm`, which is not for training"),
    Need(("sglang_",), _is("infer_backend", "sglang"), "`infer_backend: sglang`, which is not for training"),
    Need(("export_",), lambda _: False, "`llamafactory-cli export`"),
    Need(("kt_",), _on("use_kt"), "`use_kt: true`", "use_kt"),
    # The method
    Need(
        ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "loraplus_", "pissa_"),
        _is("finetuning_type", "lora"),
        "`finetuning_type: lora`",
        "finetuning_type",
        chosen=True,
    ),
    Need(("pissa_iter", "pissa_convert"), _on("pissa_init"), "`pissa_init: true`", "pissa_init"),
    Need(("loraplus_lr_embedding",), _on("loraplus_lr_ratio"), "`loraplus_lr_ratio`", "loraplus_lr_ratio"),
    Need(("module_dropout", "oft_"), _is("finetuning_type", "oft"), "`finetuning_type: oft`"),
    Need(
        ("additional_target", "create_new_adapter"),
        _is("finetuning_type", "lora", "oft"),
        "`finetuning_type: lora` or `oft`",
    ),
    Need(
        ("freeze_trainable_modules", "freeze_extra_modules"),
        _is("finetuning_type", "freeze"),
        "`finetuning_type: freeze`",
    ),
    Need(
        ("freeze_trainable_layers",),
        lambda recipe: _is("finetuning_type", "freeze")(recipe) or bool(recipe.value("use_llama_pro")),
        "`finetuning_type: freeze` or `use_llama_pro: true`",
    ),
    Need(("pref_beta", "pref_ftx"), _is("stage", "dpo", "kto"), "`stage: dpo` or `kto`"),
    Need(
        ("pref_bco_weight", "pref_loss", "dpo_label_smoothing", "simpo_gamma", "ld_alpha"),
        _is("stage", "dpo"),
        "`stage: dpo`",
    ),
    Need(("kto_",), _is("stage", "kto"), "`stage: kto`"),
    Need(("ppo_", "reward_model", "reward_model_"), _is("stage", "ppo"), "`stage: ppo`"),
    Need(("ref_model", "ref_model_"), _reference_model, "`stage: dpo` or `use_asft_loss: true`"),
    Need(("galore_",), _on("use_galore"), "`use_galore: true`", "use_galore"),
    Need(("apollo_",), _on("use_apollo"), "`use_apollo: true`", "use_apollo"),
    Need(("badam_",), _on("use_badam"), "`use_badam: true`", "use_badam"),
    Need(("swanlab_",), _on("use_swanlab"), "`use_swanlab: true`", "use_swanlab"),
    Need(("hyper_parallel_args",), _on("use_hyper_parallel"), "`use_hyper_parallel: true`", "use_hyper_parallel"),
    Need(("asft_alpha",), _on("use_asft_loss"), "`use_asft_loss: true`", "use_asft_loss"),
    Need(("eaft_alpha",), _on("use_eaft_loss"), "`use_eaft_loss: true`", "use_eaft_loss"),
    # The data
    Need(("buffer_size",), _on("streaming"), "`streaming: true`", "streaming"),
    Need(
        ("mix_strategy", "interleave_probs"),
        lambda recipe: _is("mix_strategy", "concat")(recipe) or _many_sets(recipe),
        "several names in `dataset`",
    ),
    Need(("eval_on_each_dataset",), _on("eval_dataset"), "`eval_dataset`", "eval_dataset"),
    Need(("remove_unused_columns",), lambda _: False, "a text model: LLaMA-Factory sets it to false for every recipe"),
    Need(
        ("train_sampling_strategy",),
        lambda recipe: _is("train_sampling_strategy", "random")(recipe) or not recipe.value("disable_shuffling"),
        "removing `disable_shuffling: true`, which keeps the order of the file",
    ),
    Need(
        ("train_sampling_strategy",),
        lambda recipe: _is("train_sampling_strategy", "random")(recipe) or not recipe.value("streaming"),
        "`streaming: false`: a stream has no order to choose",
    ),
    Need(("length_column_name",), lambda _: False, "a column of lengths, which LLaMA-Factory's data never has"),
    Need(("dataloader_persistent_workers",), _on("dataloader_num_workers"), "`dataloader_num_workers`"),
    # The run
    Need(("num_train_epochs",), lambda recipe: recipe.value("max_steps") <= 0, "`max_steps: -1`", refused=False),
    Need(
        ("warmup_steps", "warmup_ratio"),
        lambda recipe: not _is("lr_scheduler_type", "constant", "reduce_lr_on_plateau", "greedy")(recipe),
        "a schedule that warms up, such as `lr_scheduler_type: cosine` or `constant_with_warmup`",
    ),
    Need(
        ("optim",),
        lambda recipe: not (recipe.value("use_muon") or recipe.value("use_adam_mini")),
        "removing `use_muon` or `use_adam_mini`, which bring an optimiser of their own",
    ),
    Need(("gradient_checkpointing_kwargs",), _on("gradient_checkpointing"), _GC, "gradient_checkpointing"),
    Need(("liger_kernel_config",), _on("use_liger_kernel"), "`use_liger_kernel: true`", "use_liger_kernel"),
    Need(("fp8_",), _on("fp8"), "`fp8: true`", "fp8"),
    Need(("fsdp_config",), _on("fsdp"), "`fsdp`", "fsdp"),
    Need(("profiler_",), _on("enable_torch_profiler"), "`enable_torch_profiler: true`", "enable_torch_profiler"),
    # Evaluation
    Need(("eval_steps",), _is("eval_strategy", "steps"), "`eval_strategy: steps`", "eval_strategy"),
    Need(
        ("eval_delay", "eval_on_start"),
        lambda recipe: recipe.word("eval_strategy") != "no",
        "`eval_strategy: steps` or `epoch`",
        "eval_strategy",
    ),
    Need(
        ("compute_accuracy", "batch_eval_metrics", "eval_accumulation_steps", "include_for_metrics"),
        _evaluates,
        "`do_eval: true` and an `eval_dataset`",
        "do_eval",
    ),
    Need(
        ("eval_dataset", "per_device_eval_batch_size"),
        _evaluates,
        "`do_eval: true` or `do_predict: true`",
        refused=False,
    ),
    Need(
        ("metric_for_best_model", "greater_is_better"),
        _needs_best,
        "`load_best_model_at_end: true` or `early_stopping_steps`",
        "load_best_model_at_end",
    ),
    # What is written
    Need(("save_steps",), _is("save_strategy", "steps"), "`save_strategy: steps`", "save_strategy"),
    Need(
        ("save_total_limit",),
        lambda recipe: recipe.word("save_strategy") != "no",
        "`save_strategy: steps` or `epoch`",
        "save_strategy",
    ),
    Need(("logging_steps",), _is("logging_strategy", "steps"), "`logging_strategy: steps`", "logging_strategy"),
    Need(("run_name", "project", "trackio_space_id"), _on("report_to"), "`report_to: wandb` or the like", "report_to"),
    Need(
        ("hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision"),
        _on("push_to_hub"),
        "`push_to_hub: true`",
        "push_to_hub",
    ),
    # Generation
    Need(_GENERATION, _on("predict_with_generate"), _GENERATES, "predict_with_generate"),
    Need(("temperature", "top_p", "top_k"), _on("do_sample"), "`do_sample: true`", "do_sample", always=True),
    Need(("length_penalty",), lambda recipe: recipe.value("num_beams") > 1, "`num_beams: 2` or more", always=True),
    Need(
        ("max_length",),
        lambda recipe: (recipe.value("max_new_tokens") or 0) <= 0,
        "`max_new_tokens: 0`, which comes first",
        always=True,
    ),
)

# Of each row LLaMA-Factory obeys the first key that is set, and none of the others.
FIRST_WINS: tuple[tuple[str, ...], ...] = (
    ("use_dft_loss", "use_eaft_loss", "use_asft_loss"),
    ("use_galore", "use_apollo", "loraplus_lr_ratio", "use_badam", "use_adam_mini", "use_muon"),
    ("new_special_tokens_config", "add_special_tokens"),
)
