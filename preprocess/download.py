"""Getting FLARE-Task5-MLLM-2D from the Hugging Face Hub, where its owners ask who you are before they let you in."""

from collections.abc import Sequence
from pathlib import Path

from medvl.sources.flare import SPLITS, FlareError

REPOSITORY = "FLARE-MedFM/FLARE-Task5-MLLM-2D"
ACCESS = f"""The dataset is gated. To get in, once:
  1. log in at https://huggingface.co and ask for access on the page datasets/{REPOSITORY}
  2. make a token with read access under Settings, Access Tokens
  3. run `hf auth login` and paste it (or set HF_TOKEN), then run this command again; it goes on where it stopped"""


def download(root: Path, splits: Sequence[str] = ()) -> None:
    """Fetch the dataset to `root`; an interrupted download is taken up again.

    Args:
        root: Where to put it.
        splits: Names or folders of splits; all if empty.

    Raises:
        FlareError: no access, no network, or no disk; the message says what to do.
    """
    # Imported here: nothing else of the preprocessing needs the network.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

    folders = [split.folder for split in SPLITS.values() if not splits or {split.name, split.folder} & set(splits)]
    patterns = [pattern for folder in folders for pattern in (f"{folder}/**", f"*/{folder}/**")]
    try:
        snapshot_download(REPOSITORY, repo_type="dataset", local_dir=root, allow_patterns=patterns)
    except (GatedRepoError, RepositoryNotFoundError, LocalTokenNotFoundError) as error:  # a private one is "not found"
        raise FlareError(f"{REPOSITORY}: {_first_line(error)}\n{ACCESS}") from error
    except (HfHubHTTPError, OSError) as error:
        cure = "run the command again: what is there is not fetched twice"
        raise FlareError(f"{REPOSITORY}: {_first_line(error)}; {cure}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def tree_in(folder: Path) -> Path:
    """The tree in a folder: the folder itself, or the one below it that holds split folders (`organized_dataset/`)."""
    names = [split.folder for split in SPLITS.values()]
    if any((folder / name).is_dir() for name in names) or not folder.is_dir():
        return folder
    below = [path for path in sorted(folder.iterdir()) if any((path / name).is_dir() for name in names)]
    return below[0] if len(below) == 1 else folder
