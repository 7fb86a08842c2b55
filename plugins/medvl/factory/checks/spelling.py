"""Keys of a recipe that nothing would read, because no argument class has them.

LLaMA-Factory refuses unknown keys by itself, but drops them under ALLOW_EXTRA_ARGS=1: a misspelt key would then train
without what it asks for.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Iterable

from medvl.factory.arguments import KEY_GROUPS, defaults

# Keys that begin so are medvl's, or misspelt.
PREFIXES = tuple(prefix for group in KEY_GROUPS for prefix in group.prefixes)
# Read from the same recipe by a parser of its own, which ignores all other keys.
RAY = frozenset(("ray_num_workers", "ray_init_kwargs", "master_addr", "master_port"))
_ALIKE = 0.78  # difflib's ratio; loss_balnce and augmnt have more than .9, loss_scale less than .7


def misspelt(keys: Iterable[str], classes: Iterable[type]) -> dict[str, str]:
    """Keys meant for medvl that do not exist, each with a sentence that names the nearest one that does.

    Args:
        keys: What the recipe or the command line sets.
        classes: The argument classes of the parser that reads them, medvl's keys included.
    """
    ours, known = defaults(), known_keys(classes)
    wrong = {}
    for key in sorted(set(keys) - known):
        nearest = difflib.get_close_matches(_plain(key), ours, n=1, cutoff=0.0)[0]
        if key.startswith(PREFIXES) or _is_meant(_plain(key), nearest, known):
            wrong[key] = f"{key}: there is no such key; did you mean `{nearest}`?"
    return wrong


def dropped(keys: Iterable[str], classes: Iterable[type]) -> list[str]:
    """A sentence for every key that no argument class has and that LLaMA-Factory would drop."""
    known = known_keys(classes)
    found = []
    for key in dict.fromkeys(keys):
        if key not in known | RAY:
            nearest = difflib.get_close_matches(_plain(key), known, n=1, cutoff=_ALIKE)
            hint = f"did you mean `{nearest[0]}`?" if nearest else "remove it."
            found.append(f"{key}: there is no such key, and ALLOW_EXTRA_ARGS=1 would drop it; {hint}")
    return found


def known_keys(classes: Iterable[type]) -> set[str]:
    """The names of all keys that these argument classes read."""
    return {known.name for argument in classes for known in dataclasses.fields(argument) if known.init}


def _is_meant(key: str, ours: str, known: Collection[str]) -> bool:
    """Whether an unknown key looks like this one of medvl's, and less like any of LLaMA-Factory's."""
    similarity = _likeness(key, ours)
    if similarity < _ALIKE:
        return False
    rest = difflib.get_close_matches(key, set(known) - set(defaults()), n=1, cutoff=_ALIKE)
    return not rest or _likeness(key, rest[0]) < similarity


def _likeness(one: str, other: str) -> float:
    """Order of words does not count (balance_loss is loss_balance), nor does the prefix (run_card)."""
    pairs = [(one, other), (one, other.removeprefix("medvl_")), (_sorted(one), _sorted(other))]
    return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)


def _sorted(key: str) -> str:
    return "_".join(sorted(key.split("_")))


def _plain(key: str) -> str:
    return key.lower().replace("-", "_")
