"""Getting a source from the Hugging Face Hub, where its owners may ask who you are before they let you in."""

from collections.abc import Sequence
from pathlib import Path

from medvl.errors import DataError
from medvl.sources.base import Source

ACCESS = """The dataset is gated. To get in, once:
  1. log in at https://huggingface.co and ask for access on the page datasets/{hub}
  2. make a token with read access under Settings, Access Tokens
  3. run `hf auth login` and paste it (or set HF_TOKEN), then run this command again; it goes on where it stopped"""


def download(source: Source, root: Path, splits: Sequence[str] = ()) -> None:
    """Fetch the dataset to `root`; an interrupted download is taken up again.

    Args:
        source: Its `hub` is fetched.
        root: Where to put it.
        splits: Names or folders of splits; all if empty.

    Raises:
        DataError: no access, no network, or no disk; the message says what to do.
    """
    # Imported here: nothing else of the preprocessing needs the network.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

    hub = str(source.hub)
    folders = [
        split.folder for split in source.splits.values() if not splits or {split.name, split.folder} & set(splits)
    ]
    patterns = [pattern for folder in folders for pattern in (f"{folder}/**", f"*/{folder}/**")]
    try:
        snapshot_download(hub, repo_type="dataset", local_dir=root, allow_patterns=patterns)
    except (GatedRepoError, RepositoryNotFoundError, LocalTokenNotFoundError) as error:  # a private one is "not found"
        raise DataError(f"{hub}: {_first_line(error)}\n{ACCESS.format(hub=hub)}") from error
    except (HfHubHTTPError, OSError) as error:
        cure = "run the command again: what is there is not fetched twice"
        raise DataError(f"{hub}: {_first_line(error)}; {cure}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def tree_in(source: Source, folder: Path) -> Path:
    """The tree in a folder: the folder itself, or the one below it that holds one (`organized_dataset/`)."""
    if source.holds(folder) or not folder.is_dir():
        return folder
    below = [path for path in sorted(folder.iterdir()) if source.holds(path)]
    return below[0] if len(below) == 1 else folder
