"""Stands around LLaMA-Factory's `get_dataset`, for recipes with a medvl key.

Needs the name `get_dataset` of `llamafactory.train.sft.workflow`, which `run_sft` calls with the template, the model,
data and training arguments, and the tokenizer and processor by keyword.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from medvl.factory.checks.model import template_problems
from medvl.factory.data.cutoff import Reader, check_rows
from medvl.factory.data.issues import MOST_TOLD, Dataset, explain, find_dataset, malformed
from medvl.factory.recipe import Recipe
from medvl.wording import few


def extend_datasets(workflow: Any) -> None:
    """Let `run_sft` load its data through `DatasetLoader`; AttributeError when the function has another name."""
    stock = workflow.get_dataset
    if not isinstance(stock, DatasetLoader):
        workflow.get_dataset = DatasetLoader(stock)


@dataclass(frozen=True)
class DatasetLoader:
    """Loads as LLaMA-Factory does; with a medvl key, says which record fails, is cut or is dropped."""

    stock: Callable[..., Any]

    def __call__(
        self, template: Any, model_args: Any, data_args: Any, training_args: Any, *rest: Any, **keywords: Any
    ) -> Any:
        """LLaMA-Factory's dataset module.

        Raises:
            ValueError: data that cannot be loaded, with dataset, record and cure; what else LLaMA-Factory raises.
        """
        arguments = (template, model_args, data_args, training_args, *rest)
        recipe: Recipe | None = getattr(data_args, "medvl_recipe", None)
        if recipe is None:
            return self.stock(*arguments, **keywords)
        if problems := template_problems(recipe, keywords["processor"]):  # now that a model of a hub is here
            raise ValueError("\n".join(problems))
        names = [*(data_args.dataset or []), *(data_args.eval_dataset or [])]
        try:
            module = self.stock(*arguments, **keywords)
        except Exception as error:
            if found := explain(names, data_args.dataset_dir, data_args.media_dir):
                raise ValueError("\n".join(found)) from error
            error.add_note(f"medvl: while loading {', '.join(names)} of {data_args.dataset_dir}/dataset_info.json")
            raise
        if data_args.streaming or data_args.packing:  # rows that are not there yet, or hold several records
            return module
        # Rows that were tokenised before do not come from the entries of today.
        entries = [] if data_args.tokenized_path else names
        sets = tuple(dataset for name in entries if (dataset := find_dataset(name, data_args.dataset_dir)))
        if sets and len(sets) == len(names) and data_args.mix_strategy == "concat":
            refuse_dropped(module, sets, data_args.max_samples)
        reader = Reader(template, keywords["tokenizer"], keywords["processor"], data_args, sets)
        say_what_is_cut(module, reader, training_args.predict_with_generate)
        return module


def refuse_dropped(module: dict[str, Any], sets: tuple[Dataset, ...], max_samples: int | None) -> None:
    """ValueError for records that LLaMA-Factory left out with no more than a line in its log."""
    sizes = [dataset.form.num_samples or dataset.size() for dataset in sets]
    wanted = sum(size if max_samples is None else min(size, max_samples) for size in sizes)
    dropped = wanted - sum(len(rows) for rows in _parts(module).values())
    if dropped > 0:
        found = [sentence for dataset in sets for sentence in malformed(dataset)]
        told = few(found, MOST_TOLD) or ["its log says which, `Dropped invalid example`; convert or remove them"]
        raise ValueError("\n".join([f"LLaMA-Factory dropped {dropped} of {wanted} records:", *told]))


def say_what_is_cut(module: dict[str, Any], reader: Reader, generates: bool) -> None:
    """Log the answers that `cutoff_len` cut; ValueError where it cut images or a question."""
    from llamafactory.extras.logging import get_logger

    for name, rows in _parts(module).items():
        trains = name == "training data"
        if said := check_rows(rows, reader, name, generating=generates and not trains):
            get_logger("llamafactory.medvl").warning_rank0(said)


def _parts(module: dict[str, Any]) -> dict[str, Any]:
    """What the rows are, and the rows; each eval set for itself."""
    parts = {"training data": module.get("train_dataset")}
    evaluated = module.get("eval_dataset")
    if isinstance(evaluated, dict):
        parts |= {f"eval data `{name}`": rows for name, rows in evaluated.items()}
    else:
        parts["eval data"] = evaluated
    return {name: rows for name, rows in parts.items() if rows is not None}
