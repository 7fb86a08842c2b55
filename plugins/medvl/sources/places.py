"""Names of images as paths that stay in a folder."""

import posixpath
import re

from medvl.errors import DataError

# imagesTr/BUSI_00012.png, as nearly all are: there is nothing to resolve
_PLAIN_NAME = re.compile(r"[\w-]+/[\w-]+\.\w+")


class OutsideError(DataError):
    """An image name that leads out of its dataset's folder."""


def place_in(folder: str, name: str) -> str:
    """The path of a name that is relative to a folder, and stays in it.

    Raises:
        OutsideError: it leads out.
    """
    if _PLAIN_NAME.fullmatch(name):
        return f"{folder}/{name}"
    normal = posixpath.normpath(name.replace("\\", "/"))
    if normal.startswith(("/", "../")) or normal == ".." or "\0" in name or re.match(r"[A-Za-z]:", normal):
        raise OutsideError(f"{name!r} leads out of {folder}")
    return f"{folder}/{normal}"
