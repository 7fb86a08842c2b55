"""Runs that are kept: one JSON line each, in files of the repository, so that another day goes on where one stopped."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from medvl.sharegpt import write_atomic

KEY = ("family", "set", "arm", "seed", "plan")
Row = dict[str, Any]


def fingerprint(value: Any) -> str:
    """Eight hex digits of anything that is JSON."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=4).hexdigest()


def code_fingerprint(files: Iterable[Path]) -> str:
    """Eight hex digits of what Python files do: comments, docstrings and line breaks do not count."""
    trees = []
    for path in sorted(files):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [line for line in body if not _is_text(line)]  # type: ignore[attr-defined]
        trees.append(ast.dump(tree))
    return fingerprint(trees)


def _is_text(line: Any) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def read_rows(paths: Iterable[Path]) -> list[Row]:
    """All rows of the files that are there.

    Raises:
        ValueError: a line is no row, or a run is there twice.
    """
    rows: list[Row] = []
    seen: dict[tuple[Any, ...], str] = {}
    for path in paths:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for number, line in enumerate(lines, 1):
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
                key = key_of(row)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{where}: no run ({error!r}); take the line out, and it is measured again") from error
            if key in seen:
                raise ValueError(f"{where}: the same run as {seen[key]}; take one of the lines out")
            seen[key] = where
            rows.append(row)
    return rows


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two rows the same run."""
    return tuple(row[name] for name in KEY)


def append_row(path: Path, row: Row) -> None:
    """Add one row; the file has it whole or not at all, also with two writers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        before = path.read_bytes() if path.exists() else b""
        write_atomic(path, before + json.dumps(row, sort_keys=True).encode() + b"\n")


def parse_seeds(text: str) -> list[int]:
    """`0-7` or `3` or `0-2,5`, as numbers."""
    parts = [part.split("-") for part in text.split(",")]
    return [seed for part in parts for seed in range(int(part[0]), int(part[-1]) + 1)]
