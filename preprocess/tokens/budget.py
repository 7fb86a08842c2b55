"""How long records are in tokens, and which of them `cutoff_len` would cut.

LLaMA-Factory cuts without notice: the end of the answer is lost, or the run stops when image tokens go.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence, Set
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from medvl.argument_types import positive
from medvl.errors import DataError, UsageError
from medvl.sharegpt import Record
from preprocess.results import Action, DatasetResult, Finding, leave_out
from preprocess.tokens.formula import TokenRules, formula, read_rules
from preprocess.tokens.processor import TokenCounter
from preprocess.tokens.recipe import RECIPE_MODEL, read_recipe
from preprocess.tokens.statistics import Counts, summary

Count = Callable[[Record], tuple[int, int]]
Views = Callable[[Record], Sequence[Record]]


@dataclass(frozen=True)
class Budget:
    """One way to count.

    Attributes:
        name: What it is called in the report: the recipe's name, or the family.
        method: formula or processor.
        rules: What the recipe says of tokens.
        count: Tokens of a record: text, images.
    """

    name: str
    method: str
    rules: TokenRules
    count: Count


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """The options of this module."""
    group = arguments.add_argument_group("tokens per record")
    add = group.add_argument
    add("--recipe", type=Path, metavar="YAML", help="count for this recipe: template, pixels, tiles, cutoff_len")
    add(
        "--processor",
        nargs="?",
        const=RECIPE_MODEL,
        metavar="PATH",
        help="count with LLaMA-Factory and the processor of this checkpoint (default: the recipe's) instead of the "
        "formula: image tokens by the published resize rules, text estimated",
    )
    add("--cutoff-len", type=positive, metavar="N", help="flag longer records (default: the recipe's cutoff_len)")
    add(
        "--over-budget",
        choices=("flag", "drop", "quarantine", "error"),
        default="flag",
        help="a training record that would be cut: keep and report it (default), leave it out, or stop with an error. "
        "Validation and test records are reported only",
    )


def chosen_budgets(args: argparse.Namespace) -> list[Budget]:
    """The ways to count that the command line asks for: its recipe's, or the formula of both families.

    Raises:
        UsageError: options that cannot be followed.
    """
    if args.over_budget != "flag" and args.recipe is None and args.cutoff_len is None:
        raise UsageError("--over-budget needs to know the limit: give --recipe or --cutoff-len")
    if args.recipe is None:
        if args.processor:
            raise UsageError("--processor needs --recipe, which names template, pixels and cutoff_len")
        both = [TokenRules(template, default_system="", cutoff_len=args.cutoff_len)
                for template in ("qwen3_vl_nothink", "intern_vl")]  # fmt: skip
        return [_formula(str(rules.family), rules) for rules in both]
    recipe = read_recipe(args.recipe)
    if args.cutoff_len is not None:
        recipe["cutoff_len"] = args.cutoff_len
    rules = read_rules(recipe)
    if args.processor is None:
        if rules.family is None:
            raise UsageError(f"{args.recipe}: no token formula for template {rules.template!r}; add --processor PATH")
        return [_formula(args.recipe.name, rules)]
    place = recipe.get("model_name_or_path", "") if args.processor == RECIPE_MODEL else args.processor
    return [Budget(args.recipe.name, "processor", rules, TokenCounter(place, recipe))]


def _formula(name: str, rules: TokenRules) -> Budget:
    return Budget(name, "formula", rules, formula(rules))


def check_budget(
    parts: Sequence[DatasetResult], budgets: Sequence[Budget], views: Views | None, policy: str, training: Set[str]
) -> tuple[list[DatasetResult], list[dict[str, Any]]]:
    """Count every record, flag the long ones and treat those to train on as `policy` says.

    Args:
        parts: The outcome per dataset and split.
        budgets: Ways to count.
        views: What a record becomes in training, if not itself: several shorter ones. The longest is counted.
        policy: flag, drop, quarantine or error.
        training: Folders of the splits that are trained on.

    Returns:
        The parts with findings, without what was left out; and the report's section on tokens.

    Raises:
        DataError: records would be cut, and the policy is error.
    """
    sections = []
    prepared = list(parts)
    for budget in budgets:
        counts = _count_all(prepared, budget, views)
        over = [
            _over(part, budget, tokens, policy if part.split in training else "flag")
            for part, tokens in zip(prepared, counts, strict=True)
        ]
        found = [finding for findings in over for finding in findings]
        if policy == "error" and found:
            raise DataError(
                f"{len(found)} records would be cut and nothing was written; the first is {found[0].detail}"
            )
        sections.append(_section(prepared, budget, counts, len(found)))
        prepared = [leave_out(part, findings) for part, findings in zip(prepared, over, strict=True)]
    return prepared, sections


def _count_all(parts: Sequence[DatasetResult], budget: Budget, views: Views | None) -> list[Counts]:
    records = [record for part in parts for record in part.records]
    # The formula is over before a bar would be seen.
    steps = track(records, "tokens", console=Console(stderr=True)) if budget.method == "processor" else records
    if views is None:
        tokens = [budget.count(record) for record in steps]
    else:
        tokens = [max(map(budget.count, views(record)), key=sum) for record in steps]
    ends = np.cumsum([len(part.records) for part in parts])
    return np.split(np.fromiter(chain.from_iterable(tokens), np.int64).reshape(-1, 2), ends[:-1])


def _over(part: DatasetResult, budget: Budget, counts: Counts, policy: str) -> list[Finding]:
    limit = budget.rules.cutoff_len
    if limit is None:
        return []
    actions: dict[str, Action] = {"drop": "dropped", "quarantine": "quarantined"}
    action = actions.get(policy, "kept")
    return [
        Finding.about(
            record,
            "OVER_BUDGET",
            f"{text + image} tokens ({image} of them images) by {budget.method}, cutoff_len is {limit} ({budget.name})",
            action,
        )
        for record, (text, image) in zip(part.records, counts.tolist(), strict=True)
        if text + image > limit
    ]


def _section(parts: Sequence[DatasetResult], budget: Budget, counts: Sequence[Counts], over: int) -> dict[str, Any]:
    by_split: dict[str, list[int]] = defaultdict(list)
    by_dataset: dict[str, list[int]] = defaultdict(list)
    for place, part in enumerate(parts):
        if part.records:
            by_split[part.split].append(place)
            by_dataset[part.dataset].append(place)

    def summary_of(places: Sequence[int]) -> dict[str, Any]:
        records = [record for place in places for record in parts[place].records]
        return summary(records, np.concatenate([counts[place] for place in places]))

    return {
        "name": budget.name,
        "method": budget.method,
        "settings": asdict(budget.rules),
        "over_cutoff_len": over,
        "splits": {name: summary_of(places) for name, places in by_split.items()},
        "datasets": {name: summary_of(places) for name, places in sorted(by_dataset.items())},
    }
