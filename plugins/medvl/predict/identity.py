"""What tells a model or an adapter from another, so that answers of one are never taken for those of another."""

import hashlib
import json
from pathlib import Path

from medvl.errors import UsageError
from medvl.factory.checks.folders import CONFIG, WEIGHTS
from medvl.factory.fingerprints import base_model
from medvl.sharegpt import file_sha256

_PIECES, _PIECE_BYTES = 32, 2**16  # read of each weight file of a base model


def adapter_identity(folder: Path) -> str:
    """What tells this adapter from others: its weights, and its scaling and modules; not where its base model lies."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        stated = {key: value for key, value in config.items() if key not in ("base_model_name_or_path", "revision")}
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{folder / CONFIG}: no adapter's configuration: {error}") from error
    return hashlib.sha256(json.dumps([file_sha256(folder / WEIGHTS), stated], sort_keys=True).encode()).hexdigest()


def model_identity(model: str) -> str:
    """What tells this model from others without reading gigabytes: config, and name, size and pieces of each file."""
    config, commit = base_model(model, "main")
    folder = Path(model)
    weights = (
        sorted((file.name, file.stat().st_size, _sample(file)) for file in folder.glob("*.safetensors"))
        if folder.is_dir()
        else []
    )
    return hashlib.sha256(json.dumps([config, commit, weights or model]).encode()).hexdigest()


def _sample(file: Path) -> str:
    """SHA-256 of pieces of a file, evenly spaced: trained further, weights differ in every one of them."""
    digest, size = hashlib.sha256(), file.stat().st_size
    with file.open("rb") as stream:
        for place in range(_PIECES):
            stream.seek(max(0, size - _PIECE_BYTES) * place // (_PIECES - 1))
            digest.update(stream.read(_PIECE_BYTES))
    return digest.hexdigest()
