"""Which files of a folder hold questions: those of a source's tree, or any that look like it."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from medvl.errors import DataError
from medvl.predict.foreign import QUESTION_KEYS
from medvl.sources import Tree, file_at, tree_at, trees_below
from medvl.sources.base import Source, SourceFile

# Written by tools into folders of question files; none of them holds questions. `report_generation.json` may.
_NOT_QUESTIONS = ("dataset_info", "manifest", "report")


def question_files(folder: Path, splits: Sequence[str]) -> Iterator[tuple[Source, SourceFile, str | None]]:
    """Question files of a folder, each with its source and the first part of its ids; None where the tree names them.

    Args:
        folder: A tree, a folder in one or right above one, or a folder of question files.
        splits: Splits of a tree; default: all but training, training only if there is nothing else.

    Raises:
        DataError: several trees, or files beside one; splits where there is no tree to choose them from.
        UnknownNameError: a split that is not there.
    """
    tree = tree_at(folder)
    inside = folder.resolve()
    if tree is None:
        loose = [path for path in sorted(inside.rglob("*.json")) if _is_loose_file(path, inside)]
        if trees := list(trees_below(inside)):
            tree = _only_tree(folder, trees, loose)
    if tree is not None:
        if tree.split and splits and not {tree.split.folder, tree.split.name} & set(splits):
            raise DataError(f"{folder}: lies in the split {tree.split.folder}; remove --splits")
        yield from ((tree.source, file, None) for file in _tree_files(tree, splits))
    elif splits:
        raise DataError(f"{folder}: no tree of a data source, so that it has no splits; remove --splits")
    else:
        answered = {path.with_name(path.name.replace("_withGT", "")) for path in loose if "_withGT" in path.name}
        for path in loose:
            if path not in answered:
                yield *file_at(path), path.relative_to(inside).with_suffix("").as_posix()


def _tree_files(tree: Tree, splits: Sequence[str]) -> list[SourceFile]:
    files = tree.files(splits)
    rest = [file for file in files if file.split.role != "train"]
    return files if splits or tree.split else rest or files


def _only_tree(folder: Path, trees: Sequence[Tree], loose: Iterable[Path]) -> Tree:
    """The tree below a folder, where it is all there is.

    Read as loose files, it would be asked for its training split too, and under ids that scoring does not know.

    Raises:
        DataError: there are several, or other question files beside it.
    """
    beside = [path for path in loose if not any(path.is_relative_to(tree.root) for tree in trees)]
    if len(trees) == 1 and not beside:
        return trees[0]
    found = ", ".join(map(str, [*(tree.root for tree in trees), *beside[:1]]))
    title = trees[0].source.title
    number = f"{len(trees)} {title} trees lie" if len(trees) > 1 else f"a {title} tree lies"
    others = " and question files beside" if beside else ""
    raise DataError(f"{folder}: {number} below it{others}: {found}; give one of them as --data")


def _is_loose_file(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(folder).parts)
    named = path.stem.lower() in _NOT_QUESTIONS or "predictions" in path.stem.lower()
    return not hidden and not named and holds(path, QUESTION_KEYS, broken=True)


def holds(path: Path, keys: Iterable[str], *, broken: bool = False) -> bool:
    """Whether a file is a JSON list of objects with these keys; `broken` for one that is not JSON.

    A broken file counts as questions in a folder, so that reading it refuses it: questions would be lost silently.
    """
    try:
        content = msgspec.json.decode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return broken
    if isinstance(content, dict):
        content = next((value for value in content.values() if isinstance(value, list)), [])
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and set(keys) <= set(content[0])
