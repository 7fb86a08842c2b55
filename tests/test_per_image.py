"""Whether a box answer about several images says which of them a box lies on."""

import pytest

from medvl.box_text import parse_boxes
from medvl.per_image import tells_images_apart
from medvl.tasks import Task

NAMES = ["imagesTr/1.png", "imagesTr/left-view.png"]


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        pytest.param("[[1, 2, 30, 40]]", False, id="flat-list-with-a-number-that-is-a-file-name"),
        pytest.param("[[1, 2, 30, 40], [5, 6, 70, 80]]", False, id="two-boxes"),
        pytest.param('[{"bbox_2d": [1, 2, 30, 40], "label": "left lung"}]', False, id="a-side-of-the-body"),
        pytest.param('{"lesion": [[1, 2, 30, 40]]}', False, id="names-of-objects"),
        pytest.param("[[], []]", False, id="nothing-on-any"),
        pytest.param("no lesion", False, id="no-boxes"),
        pytest.param("[[[1, 2, 30, 40]], [[5, 6, 70, 80]]]", True, id="a-list-per-image"),
        pytest.param("[[], [[5, 6, 70, 80]]]", True, id="nothing-on-the-first"),
        pytest.param('{"1.png": [[1, 2, 30, 40]]}', True, id="file-name-of-digits"),
        pytest.param("left-view: [[1, 2, 30, 40]]", True, id="file-name-without-its-ending"),
        pytest.param('{"2": [[1, 2, 30, 40]]}', True, id="numbers-as-names"),
        pytest.param("Image-2: [[1, 2, 30, 40]]", True, id="numbered-as-prompts-are"),
        pytest.param("On the second view [[1, 2, 30, 40]]", True, id="in-words"),
        pytest.param('[{"image_id": 2, "bbox": [1, 2, 30, 40]}]', True, id="key"),
    ],
)
def test_answers_that_tell_images_apart(text: str, apart: bool) -> None:
    assert tells_images_apart(parse_boxes(text), text, NAMES, Task.DETECTION) is apart
    assert not tells_images_apart(parse_boxes(text), text, NAMES[:1], Task.DETECTION)


def test_numbers_are_names_of_instances() -> None:
    text = '{"2": [[1, 2, 30, 40]]}'
    assert not tells_images_apart(parse_boxes(text), text, NAMES, Task.INSTANCE_DETECTION)
