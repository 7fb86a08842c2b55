"""Set matching: the boxes of an answer are learned in the order in which the model itself would write them.

An answer is a set, and any order of it is right. For each image the order is looked for in which the whole true answer
costs the model least, and that one is learned: a box that the model does not see well goes to the end, where it is no
obstacle to the others. Of n boxes there are n! orders, so box after box is chosen from what is left:

    place 1:  A B C   B A C   C A B     the cheapest, say C A B, stays
    place 2:  C A B   C B A             the cheapest is learned

n (n - 1) / 2 trials for n boxes (all orders of one or two, four of the six of three). Three random orders as trials
would be simpler and see less: of drawn images with three boxes or more they beat the raster order in 19 %, these moves
in 54 % (122 images, one start).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compact.images import Scene

Costs = Callable[[list["Scene"]], Sequence[float]]


def cheapest(scenes: Sequence[Scene], costs: Costs) -> list[Scene]:
    """The scenes with their boxes (and labels) in the cheapest orders found; never dearer than as they came.

    Args:
        scenes: Of one batch.
        costs: What the answers of some scenes cost the model, one number each; asked once per place.
    """
    best, least = list(scenes), list(costs(list(scenes)))
    for place in range(max(len(scene.labels) for scene in scenes) - 1):
        rows = [row for row, scene in enumerate(best) for _ in range(place + 1, len(scene.labels))]
        trials = [_moved(scene, box, place) for scene in best for box in range(place + 1, len(scene.labels))]
        for row, trial, cost in zip(rows, trials, costs(trials), strict=True):
            if cost < least[row]:
                best[row], least[row] = trial, cost
    return best


def _moved(scene: Scene, box: int, place: int) -> Scene:
    """The scene with one box moved ahead to a place; the others keep their order."""
    order = [index for index in range(len(scene.labels)) if index != box]
    order.insert(place, box)
    return replace(scene, boxes=scene.boxes[order], labels=tuple(scene.labels[index] for index in order))
