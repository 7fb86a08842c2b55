"""The record every preprocessor writes, its files, and the manifest beside them."""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from medvl.boxes import Frame
from medvl.errors import DataError
from medvl.files import not_utf8

IMAGE_TAG = "<image>"
MEDIA_TAGS = (IMAGE_TAG, "<video>", "<audio>")  # LLaMA-Factory counts each of them wherever it stands
MANIFEST = "manifest.json"
TEMPORARY = ".tmp"  # end of a hidden file's name while it is written
_UMASK = os.umask(0)  # it can only be read by setting it, for all threads
os.umask(_UMASK)
_TITLE = re.compile(rf"^[\w-]+: (?={IMAGE_TAG}$)", re.MULTILINE)  # Image-1, Fig-0


class Turn(msgspec.Struct, frozen=True):
    """One message: `from` is "human" or "gpt"."""

    speaker: Literal["human", "gpt", "system"] = msgspec.field(name="from")
    value: str


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a record comes from, so that predictions can be joined and handed in.

    Attributes:
        split: The source's own name of the split, e.g. "validation-hidden".
        file: Absolute path of the question file.
        index: Row in that file, from 0; its place among all records of the file where `row` is given.
        sizes: (width, height) per image, pixels, EXIF orientation applied.
        answer: The source's answer as text: a string verbatim, anything else as JSON. Boxes in pixels.
        names: Image names as the source writes them, by which predictions in its own format are joined.
        question: The question as the source asks it, where it gives boxes, which the prompt has in another frame;
            otherwise left out, as the prompt says it verbatim.
        frame: Frame of the boxes in `question`; left out for pixels.
        row: Row in that file, from 0, where several records are made of one, so that `index` is another number.
        reference: What is trained on and scored against, where that is not the answer itself but a label for it.
        group: Patient or case; its records stay in one split, and may be drawn together.
        oriented: Corners of oriented boxes, `x1, y1, …, x4, y4` in pixels, for each box of the answer.
    """

    split: str
    file: str
    index: int
    sizes: list[tuple[int, int]]
    answer: str
    names: list[str] = []
    question: str | msgspec.UnsetType = msgspec.UNSET
    frame: Frame | msgspec.UnsetType = msgspec.UNSET
    row: int | msgspec.UnsetType = msgspec.UNSET
    reference: str | msgspec.UnsetType = msgspec.UNSET
    group: str | msgspec.UnsetType = msgspec.UNSET
    oriented: list[list[float]] | msgspec.UnsetType = msgspec.UNSET

    @property
    def truth(self) -> str:
        """What predictions are scored against."""
        return self.answer if self.reference is msgspec.UNSET else self.reference


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One training or evaluation sample. LLaMA-Factory reads `conversations` and `images` and ignores the rest.

    Attributes:
        id: Unique, e.g. "flare/training/Ultrasound/BUSI-det/000012".
        task: Canonical task name.
        dataset: The source's dataset name.
        conversations: A human turn with one `<image>` per image, then a gpt turn (boxes in the manifest's frame).
        images: Absolute paths, always a list.
        source: Where it comes from.
    """

    id: str
    task: str
    dataset: str
    conversations: list[Turn]
    images: list[str]
    source: Source

    @property
    def question(self) -> str:
        """The human turn without its image tags and their titles."""
        return question_of(self.conversations[0].value)

    @property
    def source_question(self) -> str:
        """The question as its source asks it, by which predictions are joined; boxes in it as they stand there."""
        return self.question if self.source.question is msgspec.UNSET else self.source.question.strip()

    @property
    def target(self) -> str:
        """The gpt turn."""
        return self.conversations[1].value


@lru_cache(maxsize=16384)  # questions are templates
def question_of(prompt: str) -> str:
    """A prompt without its image tags and their titles."""
    return _TITLE.sub("", prompt).replace(IMAGE_TAG, "").strip()


def split_prompt(prompt: str) -> tuple[str, str]:
    """(image tags with the line break behind them, question) of a prompt; an empty head where it has no image.

    >>> split_prompt("<image>\\nWhat is this?")
    ('<image>\\n', 'What is this?')
    """
    before, tag, question = prompt.rpartition(IMAGE_TAG)
    if tag and question.startswith("\n"):
        tag, question = f"{tag}\n", question[1:]
    return before + tag, question


class ManifestOptions(msgspec.Struct, frozen=True):
    """The options of a preprocess script that readers of its files need to know.

    `profiles_fingerprint` is of all instructions that its questions hold (None: verbatim), `instructions` has one
    fingerprint per task that has one (None: not known). `control_tokens` are those beside `medvl.control_tokens.KNOWN`
    that put records aside.
    """

    frame: str | None = None
    box_style: str | None = None
    profiles_fingerprint: str | None = None
    instructions: dict[str, str] | None = None
    name: str | None = None
    split_train: dict[str, float] | None = None
    control_tokens: list[str] = []


class ListedFile(msgspec.Struct, frozen=True):
    """A file as it was when the manifest was written."""

    sha256: str | None = None
    entry: str | None = None
    records: int | None = None
    num_samples: int | None = None


class Manifest(msgspec.Struct, frozen=True):
    """manifest.json: written last, so that its presence means that the files beside it are complete.

    `dataset_info` is the registry that its entries went to, relative to the folder.
    """

    options: ManifestOptions = msgspec.field(default_factory=ManifestOptions)
    files: dict[str, ListedFile] = msgspec.field(default_factory=dict)
    report_sha256: str | None = None
    images_sha256: str | None = None
    dataset_info: str | None = None


class RecordError(DataError):
    """A record that LLaMA-Factory would crash on or silently train wrongly."""


def make_record(
    *, question: str, answer: str, images: Sequence[str], titles: Sequence[str] = (), **fields: Any
) -> Record:
    """A single-turn record with one `<image>` line per image before the question.

    With `titles`, one word per image, they are told apart in the text: `Image-1: <image>`, `Image-2: <image>`, …

    Raises:
        RecordError: question or answer hold a literal `<image>`, `<video>` or `<audio>`, which LLaMA-Factory would
            count as one.
    """
    for part, text in (("question", question), ("answer", answer)):
        for tag in MEDIA_TAGS:
            if tag in text:
                raise RecordError(f"{fields['id']}: the {part} holds a literal {tag}; remove it from the source")
    before = [f"{title}: " for title in titles] if titles else [""] * len(images)
    prompt = "".join(f"{title}{IMAGE_TAG}\n" for title, _ in zip(before, images, strict=True)) + question
    turns = [Turn("human", prompt), Turn("gpt", answer)]
    return Record(conversations=turns, images=list(images), **fields)


def read_records(path: Path) -> list[Record]:
    """The records of a converted file, every field checked.

    Raises:
        RecordError: the file is not a list of records; names the file, the place and what was expected.
    """
    data = path.read_bytes()
    try:
        return msgspec.json.decode(data, type=list[Record])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: {not_utf8(data) or error}; expected the output of a preprocess script") from error


def read_each_record(path: Path) -> tuple[list[Record], list[tuple[str, str]]]:
    """The records of a converted file, and those that are none: place or id, and what was expected.

    Raises:
        RecordError: the file is not a list at all; names it and what was expected.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    try:
        raw = msgspec.json.decode(data, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: {not_utf8(data) or error}; expected the output of a preprocess script") from error
    records, others = [], []
    for place, part in enumerate(raw):
        try:
            records.append(msgspec.json.decode(part, type=Record))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            others.append((f"record {place}", str(not_utf8(data) or error)))
    return records, others


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a folder of converted files, None if there is none.

    Raises:
        RecordError: it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    data = path.read_bytes()
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = not_utf8(data) or error
        raise RecordError(
            f"{path}: not a manifest ({problem}); run the preprocess script again or remove it"
        ) from error


def manifest_of(file: Path) -> Manifest | None:
    """The manifest beside a file of records if it lists the file; None where nothing tells of it.

    Raises:
        RecordError: it is damaged.
    """
    manifest = read_manifest(file.parent)
    return manifest if manifest is not None and file.name in manifest.files else None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, even after a crash or a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY, delete=False
    ) as temporary:
        try:
            temporary.write(data)
            temporary.flush()
            os.fsync(temporary.fileno())
            Path(temporary.name).chmod(0o666 & ~_UMASK)
            Path(temporary.name).replace(path)
        except BaseException as error:
            Path(temporary.name).unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno and not error.filename:  # a full disk names no file
                error.filename = str(path)
            raise


def to_json(value: Any) -> bytes:
    """Indented JSON with a final newline; the same value gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=2) + b"\n"


def encode_records(records: Iterable[Record]) -> bytes:
    """A JSON list with one record per line, so that files can be compared and searched line by line."""
    return join_records(map(msgspec.json.encode, records))


def join_records(encoded: Iterable[bytes]) -> bytes:
    """`encode_records` for records that are encoded already."""
    lines = list(encoded)
    if not lines:
        return b"[]\n"
    lines[0] = b"[\n" + lines[0]  # the whole is tens of megabytes, and adding to it would copy it
    lines[-1] += b"\n]\n"
    return b",\n".join(lines)
