"""Where the images of references lie on disk."""

from pathlib import Path

from evaluation.references import Reference, References
from medvl.sources.flare import OutsideError, QuestionFile, image_path, question_file


def image_files(references: References) -> dict[str, QuestionFile]:
    """The question files of a tree by their "<split>/<Category>/<dataset>", as in the ids of its questions."""
    if references.kind != "tree":
        return {}
    files = [question_file(path) for path in references.files]
    return {f"{file.split.folder}/{file.category}/{file.dataset}": file for file in files}


def first_image(reference: Reference, references: References, files: dict[str, QuestionFile]) -> Path | None:
    """The file of a reference's first image, whether it is there or not; None where nothing tells.

    Args:
        reference: One of `references`.
        references: Their kind says how images are named: in a tree relative to the dataset's folder, in converted
            data as a path, absolute or relative to the file. Files outside a tree name images nobody can find.
        files: What `image_files` returns for them.
    """
    if not reference.images:
        return None
    name = reference.images[0]
    if references.kind == "records":
        return references.path.parent / name
    file = files.get(reference.id.removeprefix("flare/").rpartition("/")[0])
    try:
        return image_path(file, name) if file else None
    except OutsideError:
        return None
