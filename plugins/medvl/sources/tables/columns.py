"""Which column is what: as stated, else guessed by its name. A guess that could be another is refused."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from medvl.errors import UsageError
from medvl.sources.tables.base import BoxFormat, Role
from medvl.sources.tables.settings import Settings
from medvl.yaml_files import read_yaml

Columns = Mapping[Role, tuple[str, ...]]
ROLES: tuple[Role, ...] = get_args(Role)
# What people say for a role; `--columns patient=…`.
_SAID_FOR: Mapping[str, Role] = {"patient": "group", "case": "group", "subject": "group", "images": "image",
                                 "choices": "options", "bbox": "boxes"}  # fmt: skip
# Names of columns, in one case, without what stands between words. The second list counts where the first finds none.
_NAMES: Mapping[Role, tuple[str, str]] = {
    "image": (
        "image images imagename imagenames imagefile imagefilename imagepath imagepaths imageindex img imgs imgname "
        "imgpath imgfile file filename filenames filepath path picture figurepath bild bilddatei datei dateiname",
        "imageid imgid picturepath photo slice",
    ),
    "question": ("question questions query prompt instruction frage", "questiontext problem"),
    "answer": (
        "answer answers label labels target response class diagnosis gtanswer output groundtruth antwort diagnose "
        "klasse",
        "classname findinglabels labelname category disease report findings impression caption grade befund wert value",
    ),
    "boxes": (
        "boxes bbox bboxes box boundingbox boundingboxes bbox2d bboxaabb",
        "polygon polygons segmentation rle encodedpixels",
    ),
    "label": (
        "label labels class classname target diagnosis labelname category categories diagnose klasse",
        "name finding findings answer disease coarselesiontype",
    ),
    "options": ("options choices answerchoices candidates", ""),
    "task": ("task tasktype aufgabe", ""),
    "dataset": ("dataset datasetname", ""),
    "split": ("split partition", "subset"),
    "group": ("patient patientid patientname subject subjectid case caseid", "pid studyid patientennummer patientnr"),
    "reader": ("", ""),
    "width": ("imagewidth imgwidth", "width"),
    "height": ("imageheight imgheight", "height"),
}
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("x0", "y0", "x1", "y1"),
            ("left", "top", "right", "bottom"), ("minx", "miny", "maxx", "maxy"))  # fmt: skip
_SIDES = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("xmin", "ymin", "width", "height"),
          ("xmin", "ymin", "w", "h"), ("left", "top", "width", "height"), ("bboxx", "bboxy", "bboxw", "bboxh"),
          ("bboxx", "bboxy", "bboxwidth", "bboxheight"))  # fmt: skip
_CENTRES = (("xcenter", "ycenter", "width", "height"), ("xcenter", "ycenter", "w", "h"), ("cx", "cy", "w", "h"),
            ("cx", "cy", "width", "height"), ("centerx", "centery", "width", "height"))  # fmt: skip
_FORMATS: Mapping[BoxFormat, tuple[tuple[str, ...], ...]] = {"xyxy": _CORNERS, "xywh": _SIDES, "cxcywh": _CENTRES}
MASKS = "rle encodedpixels mask masks maskpath maskfile maskname segmentationmask"
_OPTION = re.compile(r"(?:option|choice|op|opt)?([a-z])", re.IGNORECASE)


def read_columns(words: Sequence[str]) -> dict[Role, str]:
    """What `--columns` says: KEY=COLUMN words, or a YAML file of them.

    Raises:
        UsageError: a key that is no role, or given twice.
    """
    pairs: list[tuple[str, str]] = []
    for word in words:
        key, equals, column = word.partition("=")
        if equals:
            pairs.append((key, column))
        else:
            try:
                pairs += [(key, str(value or "")) for key, value in read_yaml(Path(word)).items()]
            except ValueError as error:
                raise UsageError(f"--columns {word}: neither KEY=COLUMN nor a YAML file: {error}") from error
    columns: dict[Role, str] = {}
    for key, column in pairs:
        role = _SAID_FOR.get(key, key)
        if role not in ROLES:
            known = [*ROLES, *_SAID_FOR]
            raise UsageError(f"--columns {key}=…: no such key{_nearest(key, known)}; known: {', '.join(known)}")
        if role in columns:
            raise UsageError(f"--columns names {role} twice")
        columns[role] = column
    return columns


def chosen_columns(names: Sequence[str], said: Settings) -> tuple[dict[Role, tuple[str, ...]], set[Role]]:
    """The columns of every role that has some, and the roles that were guessed.

    Args:
        names: All columns of the table.
        said: Columns that are stated, and the task, without which boxes are taken for the answers.

    Raises:
        UsageError: a stated column is not there, or a guess could be another.
    """
    columns = {role: _named(role, column, names) for role, column in said.columns.items()}
    taken = {name for found in columns.values() for name in found}
    free = [name for name in names if name not in taken]
    guessed: set[Role] = set()

    def guess(role: Role, *ways: Callable[[Sequence[str]], Iterable[str]]) -> None:
        if role not in columns and (found := next(filter(None, (tuple(way(free)) for way in ways)), ())):
            columns[role] = found
            guessed.add(role)
            free[:] = [name for name in free if name not in found]

    if said.task is None or said.task.has_boxes:
        guess("boxes", box_columns, partial(_guess, "boxes"))
    guess("options", partial(_guess, "options"), _option_columns)
    guess("task", partial(_guess, "task"))
    boxes, mixed = bool(columns.get("boxes")), bool(columns.get("task"))
    if said.task and said.task.has_boxes and not boxes:
        guess("boxes", lambda names: [name for name in _guess("answer", names) if "answer" in _plain(name)])
    for role in ("answer", *ROLES) if mixed else ROLES:
        # The name of a box's object, or the answer to a question; where tasks are mixed, first the answer.
        if mixed or role != ("answer" if boxes else "label"):
            guess(role, *([_numbered_images] if role == "image" else []), partial(_guess, role))
    return {role: found for role, found in columns.items() if found}, guessed


def format_of(columns: Columns) -> BoxFormat | None:
    """The order of numbers that the names of four box columns say; None for others."""
    words = tuple(map(_plain, columns.get("boxes", ())))
    return next((order for order, known in _FORMATS.items() if words in known), None)


def is_mask(columns: Columns) -> bool:
    """Whether the boxes stand as masks, by the name of their column."""
    names = columns.get("boxes", ())
    return len(names) == 1 and _plain(names[0]) in MASKS.split()


def _named(role: Role, column: str, names: Sequence[str]) -> tuple[str, ...]:
    """The columns that a statement names."""
    found = [column] if column in names else [part.strip() for part in column.split(",") if part.strip()]
    for name in found:
        if name not in names:
            said = next((word for word, meant in _SAID_FOR.items() if meant == role and role == "group"), role)
            raise UsageError(f"--columns {said}={name}: no such column{_nearest(name, names)}; "
                             f"the columns are {', '.join(names)}")  # fmt: skip
    return tuple(found)


def _nearest(name: str, known: Sequence[str]) -> str:
    folded = {candidate.lower(): candidate for candidate in known}
    nearest = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    return f", did you mean {folded[nearest[0]]!r}" if nearest else ""


def _plain(name: str) -> str:
    """A name in one case without signs; of a dotted one its last part.

    >>> _plain("Image Index"), _plain("qa.question"), _plain("x_min")
    ('imageindex', 'question', 'xmin')
    """
    return re.sub(r"[\W_]+", "", name.rpartition(".")[2] or name).lower()


def _guess(role: Role, names: Sequence[str]) -> tuple[str, ...]:
    for known in _NAMES[role]:
        found = [name for name in names if _plain(name) in known.split()]
        found = [name for name in found if "." not in name] or found
        if len(found) > 1:
            said = "patient" if role == "group" else role
            raise UsageError(f"{' or '.join(found)} could be the column of the {said}; say --columns {said}=COLUMN")
        if found:
            return tuple(found)
    return ()


def box_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Four columns with the numbers of a box."""
    by_word = {_plain(name): name for name in reversed(names)}
    found = [
        tuple(by_word[word] for word in words)
        for known in _FORMATS.values()
        for words in known
        if set(words) <= by_word.keys()
    ]
    if corners := [columns for columns in found if tuple(map(_plain, columns)) in _CORNERS]:
        # xmin, ymin, xmax, ymax beside width and height, which are the image's.
        found = [columns for columns in found if columns in corners or columns[:2] != corners[0][:2]]
    if len(found) > 1:
        sets = " or ".join(",".join(columns) for columns in found)
        raise UsageError(f"{sets} could be the boxes; say --columns boxes={','.join(found[0])}")
    return found[0] if found else ()


def _option_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Columns A, B, … with the text of an option each; two at least, and from A on."""
    by_letter: dict[str, str] = {}
    for name in names:
        if (match := _OPTION.fullmatch(_plain(name))) and "." not in name:
            by_letter.setdefault(match[1], name)
    run: list[str] = []
    while (letter := chr(ord("a") + len(run))) in by_letter:
        run.append(by_letter[letter])
    return tuple(run) if len(run) > 1 else ()


def _numbered_images(names: Sequence[str]) -> tuple[str, ...]:
    """Columns image1, image2, … in the order of their numbers; none where one is called `image` alone."""
    found = [(int(match[1]), name) for name in names if (match := re.fullmatch(r"(?:image|img)(\d+)", _plain(name)))]
    return tuple(name for _, name in sorted(found)) if len(found) > 1 else ()
