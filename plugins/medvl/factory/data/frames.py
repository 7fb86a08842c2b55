"""Which frame the boxes of a recipe's training data are in, as the manifests beside the files state it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medvl.factory.data.entries import read_entries
from medvl.sharegpt import manifest_of


def stated_frames(arguments: Any) -> dict[str | None, str]:
    """Frame -> a training file that is in it; None stands for files whose frame no manifest states."""
    stated: dict[str | None, str] = {}
    # With `tokenized_path` the files may be gone, and their dataset_info.json.
    for entry in read_entries(arguments.setting("dataset"), arguments.setting("dataset_dir")):
        files: list[Path | None] = [*entry.files] or [None]
        for file in files:
            manifest = manifest_of(file) if file else None
            stated[manifest.options.frame if manifest else None] = str(file or entry.name)
    return stated


def require_frame(arguments: Any) -> None:
    """Raise ValueError when a training file is in another frame than `grounding_frame`."""
    for frame, file in stated_frames(arguments).items():
        if frame not in (None, arguments.grounding_frame):
            raise ValueError(
                f"grounding_frame is {arguments.grounding_frame}, but the boxes of {file} are in the frame {frame}, as "
                f"its manifest says; set `grounding_frame: {frame}`, or convert all files to one frame"
            )
