"""How near a question is to what the classifier was trained on."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from medvl.sharegpt import write_atomic

FILE = "similarity.safetensors"


def nearest(features: NDArray[np.float32], index: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine to the nearest row of the index, for unit features (questions, width) and index (rows, width)."""
    similar: NDArray[np.float32] = (features @ index.T).max(1)
    return similar


def save_index(folder: Path, features: NDArray[np.float32]) -> None:
    """Write the unit features of training questions, (rows, width)."""
    write_atomic(folder / FILE, save({"features": np.ascontiguousarray(features)}))


def read_index(folder: Path) -> NDArray[np.float32]:
    """The features that `save_index` wrote."""
    return load_file(folder / FILE)["features"]
