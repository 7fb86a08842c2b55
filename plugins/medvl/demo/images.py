"""Writes the drawn datasets as a folder tree in the FLARE layout, so that the demo takes the way real data takes.

A small one to try things on:  python -m medvl.demo.images data/example --train 12 --val 4
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medvl.demo.scenes import DATASETS, Dataset

# Folder, question file and image folder of a split, as in the FLARE download.
_SPLITS = (("training", "train", "imagesTr"), ("validation-public", "val", "imagesVal"))


def build_tree(root: Path, *, seed: int = 0, train: int = 320, val: int = 24) -> None:
    """Write `train` and `val` questions per dataset under `root`, replacing what an earlier call left there.

    Same arguments, same bytes: every record has a random stream of its own, so more records do not change earlier ones.
    """
    for split, (folder, _, _) in enumerate(_SPLITS):
        shutil.rmtree(root / folder, ignore_errors=True)
        for number, dataset in enumerate(DATASETS):
            count = (train, val)[split]
            _write_dataset(
                root, dataset, split, [np.random.default_rng((seed, split, number, i)) for i in range(count)]
            )


def _write_dataset(root: Path, dataset: Dataset, split: int, streams: list[np.random.Generator]) -> None:
    folder, questions, images = _SPLITS[split]
    home = root / folder / dataset.category / dataset.name
    (home / images).mkdir(parents=True)
    records = [_write_record(home, images, dataset, split, index, rng) for index, rng in enumerate(streams)]
    text = json.dumps(records, indent=1, ensure_ascii=False)
    (home / f"{dataset.name}_questions_{questions}.json").write_text(text, encoding="utf-8")


def _write_record(
    home: Path, images: str, dataset: Dataset, split: int, index: int, rng: np.random.Generator
) -> dict[str, Any]:
    scene = dataset.draw(rng)
    views = [f"-{view + 1}" for view in range(len(scene.images))] if len(scene.images) > 1 else [""]
    names = [f"{images}/{dataset.name}_{index:05d}{view}.{dataset.suffix}" for view in views]
    for name, image in zip(names, scene.images, strict=True):
        Image.fromarray(image).save(home / name)
    return {
        "TaskType": dataset.task_type,
        "Modality": dataset.modality,
        "ImageName": names if len(names) > 1 else names[0],
        "Question": scene.question,
        "Answer": scene.answer,
        "Split": dataset.split_names[split],
    }


def main() -> None:
    """Write a tree from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of the tree")
    parser.add_argument("--train", type=int, default=320, help="training questions per dataset (default: %(default)s)")
    parser.add_argument("--val", type=int, default=24, help="validation questions per dataset (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    build_tree(arguments.root, seed=arguments.seed, train=arguments.train, val=arguments.val)


if __name__ == "__main__":
    main()
