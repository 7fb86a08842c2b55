"""Which frame the boxes of a recipe's training data are in, as the manifests beside the files state it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from medvl.sharegpt import read_manifest


def stated_frames(arguments: Any) -> dict[str | None, str]:
    """Frame -> a training file that is in it; None stands for files whose frame no manifest states."""
    stated: dict[str | None, str] = {}
    for file in _training_files(arguments.setting("dataset") or [], Path(arguments.setting("dataset_dir"))):
        manifest = read_manifest(file.parent)
        listed = manifest is not None and file.name in manifest.files
        stated[manifest.options.frame if manifest and listed else None] = str(file)
    return stated


def require_frame(arguments: Any) -> None:
    """Raise ValueError when a training file is in another frame than `grounding_frame`."""
    for frame, file in stated_frames(arguments).items():
        if frame not in (None, arguments.grounding_frame):
            raise ValueError(
                f"grounding_frame is {arguments.grounding_frame}, but the boxes of {file} are in the frame {frame}, as "
                f"its manifest says; set `grounding_frame: {frame}`, or convert all files to one frame"
            )


def _training_files(names: list[str], folder: Path) -> list[Path]:
    info = folder / "dataset_info.json"
    if not info.is_file():
        return []  # with `tokenized_path` the files may be gone
    entries = msgspec.json.decode(info.read_bytes(), type=dict[str, dict[str, Any]])
    return [folder / entries.get(name, {}).get("file_name", name) for name in names]
