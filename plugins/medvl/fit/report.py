"""What the trials come to: the table, the choice, and the recipe that is written."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from omegaconf import OmegaConf
from rich.table import Table

from medvl.fit.memory import computed_gib
from medvl.fit.preparing import Facts
from medvl.fit.settings import Setting, applied, changes, words
from medvl.fit.trial import FAILED, OK, OUT_OF_MEMORY
from medvl.fit.trying import How, Tried

# Settings within this share of the fastest are as fast; of those the one with the least memory is chosen.
AS_FAST = 0.02
# The first loss of all settings is of the same records and weights. In 16 bits, other batches round it otherwise.
LOSS_DIFFERS = 0.03
CARDS = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141)  # GB that cards have
_CARD_GIB = 0.95  # GiB of which are to be had, per GB of its name


class Row(msgspec.Struct, frozen=True):
    """One setting in the table and in the JSON.

    Attributes:
        setting: What was tried.
        state: "ok", why not, or "computed".
        step_s: Median seconds of a step; None where nothing was timed, as below.
        samples_s, tokens_s: Records and their tokens (images counted, padding not) per second.
        gib: Peak of GPU memory.
        gib_computed: Whether that is the formula's.
        hours: Of the whole recipe, without evaluation and saving.
        reason: More about a state that is not ok.
    """

    setting: Setting
    state: str
    step_s: float | None = None
    samples_s: float | None = None
    tokens_s: float | None = None
    gib: float | None = None
    gib_computed: bool = True
    hours: float | None = None
    reason: str = ""


def rows(tried: Sequence[Tried], own: Setting, facts: Facts, how: How) -> list[Row]:
    """The results of all trials."""
    losses = {one.setting.bits: one.measured.loss for one in tried if one.setting == own and one.measured.state == OK}
    return [_row(one, losses.get(one.setting.bits), facts, how) for one in tried]


def _row(one: Tried, expected: float | None, facts: Facts, how: How) -> Row:
    setting, measured = one.setting, one.measured
    gib = measured.peak_gib
    computed = gib is None and facts.sizes is not None
    if computed and facts.sizes is not None:
        gib = round(computed_gib(facts.sizes, setting, facts.longest, how.world), 2)
    if measured.state != OK:
        fits = None if measured.state in (OUT_OF_MEMORY, FAILED) or not computed else gib
        return Row(setting, measured.state, gib=fits, gib_computed=computed, reason=measured.reason)
    step = statistics.median(measured.seconds)
    records = setting.batch * setting.accumulation * how.world
    state, reason = OK, ""
    if expected and measured.loss is not None and abs(measured.loss - expected) > LOSS_DIFFERS * abs(expected):
        state = "another loss"
        reason = f"its first loss is {measured.loss:.4g}, the recipe's {expected:.4g}"
    return Row(
        setting,
        state,
        step_s=round(step, 4),
        samples_s=round(records / step, 2),
        tokens_s=round(statistics.median(facts.tokens) / step, 1),
        gib=gib,
        gib_computed=computed,
        hours=None if facts.steps is None else round(facts.steps * step / 3600, 4),
        reason=reason,
    )


def computed_rows(settings: Sequence[Setting], facts: Facts, world: int) -> list[Row]:
    """Memory alone, by the formula."""
    if facts.sizes is None:
        return []
    sizes = facts.sizes
    return [
        Row(one, "computed", gib=round(computed_gib(sizes, one, facts.longest, world), 1))
        for one in settings
    ]  # fmt: skip


def best(found: Sequence[Row]) -> Row | None:
    """The fastest; of those as fast, the one with the least memory."""
    good = [row for row in found if row.state == OK and row.samples_s]
    if not good:
        return None
    top = max(row.samples_s or 0 for row in good)
    near = [row for row in good if (row.samples_s or 0) >= (1 - AS_FAST) * top]
    return min(near, key=lambda row: (row.gib or 0, -(row.samples_s or 0)))


def card_for(gib: float) -> str:
    """The smallest usual card that holds so much."""
    return next((f"{card} GB" for card in CARDS if gib <= card * _CARD_GIB), "none")


def console_table(found: Sequence[Row], own: Setting, chosen: Row | None, title: str) -> Table:
    """For the console; the chosen setting has a star."""
    computed = any(row.gib_computed for row in found if row.gib is not None)
    timed = any(row.step_s for row in found)
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("", lambda row: "*" * (row is chosen) + " as it is" * (row.setting == own)),
        ("micro-batch", lambda row: f"{row.setting.batch} x {row.setting.accumulation}"),
        ("checkpointing", lambda row: "on" if row.setting.checkpointing else "off"),
        ("fused loss", lambda row: "on" if row.setting.fused else "off"),
        ("bits", lambda row: str(row.setting.bits or "as computed in")),
        ("s/step", lambda row: _number(row.step_s)),
        ("samples/s", lambda row: _number(row.samples_s)),
        ("tokens/s", lambda row: f"{row.tokens_s:,.0f}" if row.tokens_s else ""),
        ("GiB, computed" if computed else "GiB", lambda row: "" if row.gib is None else f"{row.gib:.2f}"),
        ("card, computed", lambda row: "" if timed or row.gib is None else card_for(row.gib)),
        ("hours", lambda row: _number(row.hours)),
        ("state", lambda row: "" if row.state in (OK, "computed") else row.state),
    ]
    cells = [(head, [show(row) for row in found]) for head, show in columns]
    shown = [(head, values) for head, values in cells if any(values) and not (head == "bits" and len(set(values)) == 1)]
    table = Table(*(head for head, _ in shown), title=title)
    for line in zip(*(values for _, values in shown), strict=True):
        table.add_row(*line)
    return table


def write_recipe(
    out: Path, path: Path, recipe: Mapping[str, Any], found: Sequence[Row], chosen: Row, own: Setting, facts: Facts,
    how: How,
) -> bytes:  # fmt: skip
    """The chosen setting as a recipe, and in its header what was measured."""
    changed = changes(chosen.setting, own, recipe)
    before = next((row for row in found if row.setting == own and row.samples_s), None)
    card = f"{facts.gpu} ({facts.gpu_gib} GiB)" if facts.gpu else "CPU, no GPU"
    limit = f", limited to {how.memory:g} GB" if how.memory else ""
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items() if version)
    lines = [
        f"{path.name} in the fastest setting that `medvl fit` found on {datetime.now(UTC):%Y-%m-%d}.",
        "",
        f"  llamafactory-cli train {shlex.quote(str(out))}",
        "",
        f"Chosen    {chosen.setting}: {_told(chosen)}",
        *([f"As it is  {before.setting}: {_told(before)}"] if before else []),
        f"Changed   {words(changed) or 'nothing'}",
        f"The same  {own.batch * own.accumulation * how.world} records in each step, their order, the loss, "
        + ("the precision" if chosen.setting.bits == own.bits else "but NOT the precision (--allow-bits)"),
        f"Measured  on {card}{limit}, {how.world} device{'s' if how.world > 1 else ''}: median of {how.steps} steps "
        "of records drawn from the data,",
        "          memory at its longest records; evaluation and saving are not in the hours",
        *(f"            {row.setting}: {_told(row)}" for row in found),
        f"Versions  {versions}",
        "",
        f"What the keys cost or buy: see {path}.",
    ]
    header = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    # Quotes text that LLaMA-Factory would read as a number, as 1e5.
    body = OmegaConf.to_yaml(OmegaConf.create(applied(recipe, changed)))
    return f"{header}\n{body}".encode()


def _told(row: Row) -> str:
    if row.samples_s is None:
        return row.state
    parts = [f"{row.samples_s:g} samples/s"]
    if row.gib is not None:
        parts.append(f"{row.gib:g} GiB{' (computed)' if row.gib_computed else ''}")
    if row.hours is not None:
        parts.append(f"{_number(row.hours)} h")
    return ", ".join(parts) + ("" if row.state == OK else f" ({row.state})")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"
