"""What the grounding loss did, for the trainer's log and its plot."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch

from medvl.losses.coordinates import Targets
from medvl.losses.grounding import GroundingSettings, Terms

SKIPPED_WARNING = 0.01  # share of boxes left out

log = logging.getLogger("medvl")


class GroundingLog:
    """What the terms came to since the last log: sums on the device, read only when logged."""

    NAMES = ("loss_lm", "loss_w1", "loss_iou", "loss_fp", "loss_fn", "iou_teacher_forced")

    def __init__(self) -> None:
        """Nothing seen yet."""
        self.boxes = self.skipped = self.cut = 0  # of the whole run, on all devices
        self.warned = self.warned_of_cuts = False
        self._sums: torch.Tensor | None = None

    def add(self, loss: torch.Tensor, terms: Terms | None, targets: Targets) -> None:
        """Count one micro-batch; `terms` is None when it has nothing to ground."""
        nothing = loss.new_zeros((), dtype=torch.float32)
        values = [loss.detach().float()] + [nothing] * 5
        counts = [nothing + 1] + [nothing] * 5
        if terms is not None:
            # Back from means over all records to sums, and the number of records that have such a term.
            shares = targets.box_shares, targets.box_shares, targets.fp_shares, targets.fn_shares
            values[1:5] = [term.detach().float() for term in (terms.w1, terms.iou, terms.fp, terms.fn)]
            counts[1:5] = [share.sum().float() for share in shares]
            values[5], counts[5] = terms.iou_teacher_forced.float() * terms.boxes, nothing + terms.boxes
        values += [nothing + targets.boxes, nothing + targets.cut]
        counts += [nothing + targets.skipped, nothing]
        sums = torch.stack(values + counts)
        self._sums = sums if self._sums is None else self._sums + sums

    def read(self, accelerator: Any, micro_batches: int) -> dict[str, float]:
        """Means since the last call, over micro-batches and devices; every rank must call it.

        A term that no record had is left out. `boxes_per_batch` is per optimiser step, which is `micro_batches` on all
        devices together; `boxes_skipped` counts boxes and `boxes_cut` lists of boxes.
        """
        width = len(self.NAMES) + 2
        sums = torch.zeros(2 * width, device=accelerator.device) if self._sums is None else self._sums
        self._sums = None
        totals = accelerator.reduce(sums, "sum").tolist()
        values, counts = totals[:width], totals[width:]
        logged = {
            name: round(value / count, 6)
            for name, value, count in zip(self.NAMES, values, counts, strict=False)
            if count > 0
        }
        boxes, cut, skipped = int(values[-2]), int(values[-1]), int(counts[-2])
        self.boxes += boxes
        self.skipped += skipped
        self.cut += cut
        per_step = boxes * micro_batches / max(counts[0], 1.0)
        return logged | {"boxes_per_batch": round(per_step, 3), "boxes_skipped": skipped, "boxes_cut": cut}

    def warn_once(self) -> None:
        """Say so when there is nothing to ground, when boxes are left out, or when lists have lost their end."""
        if self.cut and not self.warned_of_cuts:
            self.warned_of_cuts = True
            log.warning(
                "grounding loss: %d lists of boxes so far were cut off by `cutoff_len`, and are trained without their "
                "end; raise it (boxes_cut in the log counts them)",
                self.cut,
            )
        if self.warned:
            return
        if self.boxes + self.skipped == 0:
            self.warned = True
            log.warning("grounding loss: no answer so far holds a box; is this the dataset you meant?")
        elif self.skipped > SKIPPED_WARNING * (self.boxes + self.skipped):
            self.warned = True
            log.warning(
                "grounding loss: %d of %d boxes are left out, since this tokenizer joins their digits with other "
                "characters, or a number is too long; they are trained by the language-model loss alone",
                self.skipped,
                self.boxes + self.skipped,
            )


def panels(settings: GroundingSettings, eval_sets: Iterable[str] = ()) -> dict[str, str]:
    """Logged names to the titles of their plots.

    Args:
        settings: The weights, for the titles.
        eval_sets: Names of the eval sets whose records are answered; "" for a single one.
    """
    weighted = {
        "loss_w1": f"W1 of digits (x {settings.w1:g})",
        "loss_iou": f"1 - {settings.iou} + corners (x {settings.scale * settings.alpha:g})",
        "loss_fp": f"false positives (x {settings.scale * settings.beta:g})",
        "loss_fn": f"misses (x {settings.scale * settings.gamma:g})",
    }
    generated = {
        f"{eval_prefix(name)}boxes_{metric}": title
        for metric, title in (("iou", "eval IoU"), ("f1", "eval F1"))
        for name in eval_sets
    }
    return weighted | {"iou_teacher_forced": "IoU, teacher-forced"} | generated


def eval_prefix(name: str) -> str:
    """What the metrics of an eval set begin with, as the trainer names its own; "" is the name of a single set."""
    return f"eval_{name}_" if name else "eval_"
