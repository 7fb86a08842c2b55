"""Images change together with their boxes, and only where the answer stays true."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from medvl.augment.geometric import ANGLE_WITH_BOXES, draw_geometric, move_boxes, stays_inside
from medvl.augment.images import Changes, augment
from medvl.augment.rewriting import read_box_answer
from medvl.augment.rules import permission
from medvl.box_text import BOX_STYLES, format_boxes, parse_boxes
from medvl.boxes import Boxes, as_boxes, iou

SIZE = (200, 150)
STILL = Changes(geometric=False, photometric=False)


def drawn(boxes: Boxes, size: tuple[int, int] = SIZE) -> Image.Image:
    """A black image with white rectangles."""
    image = Image.new("RGB", size)
    for x1, y1, x2, y2 in boxes.tolist():
        ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), fill=(255, 255, 255))
    return image


def bright(image: Image.Image) -> Boxes:
    """The box around all bright pixels."""
    rows, columns = np.nonzero(np.array(image)[..., 0] > 127)
    return as_boxes([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng([5, seed])


WAYS = {
    "basic": Changes(photometric=False),
    "mirrored": Changes(photometric=False, geometric=False, mirror_x=True, mirror_y=True),
    "cropped": Changes(advanced=True, photometric=False),
    "bent": Changes(advanced=True, photometric=False, ultrasound=True, mirror_x=True),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [(200, 150), (97, 131)])
def test_box_follows_the_object_to_a_pixel(way: str, size: tuple[int, int]) -> None:
    box = as_boxes([30, 40, 75, 90])
    for seed in range(12):
        result = augment(drawn(box, size), box, random(seed), WAYS[way])
        assert result.image.size == size
        assert result.boxes is not None
        assert np.abs(bright(result.image) - result.boxes).max() <= 1, f"seed {seed}"


def test_a_round_object_stays_inside_its_turned_box() -> None:
    """The box around a turned box is larger than needed for a round object: the price of not knowing its shape."""
    box = as_boxes([60, 40, 140, 120])
    worst = 1.0
    for seed in range(12):
        image = Image.new("RGB", SIZE)
        ImageDraw.Draw(image).ellipse((60, 40, 139, 119), fill=(255, 255, 255))
        result = augment(image, box, random(seed), Changes(photometric=False))
        assert result.boxes is not None
        found = bright(result.image)
        assert (found[0, :2] >= result.boxes[0, :2] - 1).all() and (found[0, 2:] <= result.boxes[0, 2:] + 1).all()
        worst = min(worst, iou(found, result.boxes)[0, 0])
    assert worst > 0.85
    assert ANGLE_WITH_BOXES <= 3


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 170), st.integers(0, 120), st.integers(3, 30), st.integers(3, 30)), max_size=30),
    st.integers(0, 10_000),
    st.booleans(),
)
def test_no_box_is_ever_lost(corners: list[tuple[int, int, int, int]], seed: int, bent: bool) -> None:
    boxes = as_boxes([[x, y, min(x + w, SIZE[0]), min(y + h, SIZE[1])] for x, y, w, h in corners])
    changes = Changes(advanced=True, photometric=False, mirror_x=True, ultrasound=bent)
    result = augment(drawn(boxes), boxes, random(seed), changes)
    assert result.boxes is not None and result.boxes.shape == boxes.shape
    if len(boxes):
        before, after = (b[:, 2:] - b[:, :2] for b in (boxes, result.boxes))
        assert (after.prod(axis=1) > 0.4 * before.prod(axis=1)).all()
        assert (result.boxes >= 0).all() and (result.boxes <= [*SIZE, *SIZE]).all()


def test_a_draw_that_pushes_a_box_out_is_drawn_again_more_gently() -> None:
    """Slivers along all four edges: a shift of five per cent would push some out."""
    boxes = as_boxes([[0, 10, 6, 140], [194, 10, 200, 140], [10, 0, 190, 5], [10, 145, 190, 150]])
    rejected = 0
    for seed in range(20):
        steps = draw_geometric(SIZE, boxes, random(seed), strength=1, bent=False, cropped=False, fill=[0.0] * 3)
        rejected += not stays_inside(move_boxes(boxes, steps, SIZE), SIZE)
        result = augment(drawn(boxes), boxes, random(seed), Changes(photometric=False))
        assert result.boxes is not None
        assert (result.boxes[:, 2:] > result.boxes[:, :2]).all()
    assert rejected > 5


def test_boxes_that_cannot_be_written_stay_where_they_are() -> None:
    box = as_boxes([30, 40, 75, 90])
    result = augment(drawn(box), box, random(0), Changes(photometric=False), writable=lambda _: False)
    assert not result.moved
    assert result.boxes is not None and np.array_equal(result.boxes, box)
    assert np.array_equal(np.array(result.image), np.array(drawn(box)))


def test_without_boxes_the_whole_image_stays_inside() -> None:
    frame = Image.new("RGB", SIZE)
    drawing = ImageDraw.Draw(frame)
    for x, y in ((3, 3), (196, 3), (3, 146), (196, 146)):  # marks in all corners
        drawing.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(255, 255, 255))
    before = (np.array(frame)[..., 0] > 127).sum()
    for seed in range(12):
        moved = augment(frame, None, random(seed), Changes(advanced=True, photometric=False))
        share = (np.array(moved.image)[..., 0] > 127).sum() / before
        assert 0.5 < share < 1.1, f"seed {seed}: {share}"


@pytest.mark.parametrize("changes", [Changes(), Changes(advanced=True, ultrasound=True)], ids=["basic", "advanced"])
def test_the_same_state_gives_the_same_image_and_another_one_another(changes: Changes) -> None:
    box = as_boxes([30, 40, 75, 90])
    first, again, other = (augment(drawn(box), box, random(seed), changes).image for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_global_random_states_are_not_touched() -> None:
    import torch

    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    augment(drawn(as_boxes([])), None, random(0), Changes(advanced=True, ultrasound=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])


def test_tones_change_grey_levels_and_nothing_else() -> None:
    box = as_boxes([30, 40, 75, 90])
    grey = Image.new("RGB", SIZE, (90, 60, 40))
    ImageDraw.Draw(grey).rectangle((30, 40, 74, 89), fill=(200, 180, 160))
    levels = set()
    for seed in range(10):
        result = augment(grey, box, random(seed), Changes(geometric=False))
        assert result.boxes is not None and np.array_equal(result.boxes, box)
        assert np.array_equal(bright(result.image), box)
        levels.add(result.image.getpixel((0, 0)))
    assert len(levels) == 10
    assert all(red > green > blue for red, green, blue in levels), "colours keep their order"


def test_speckle_is_for_ultrasound_and_leaves_the_background_dark() -> None:
    box = as_boxes([30, 40, 75, 90])
    noisy = {"ultrasound": 0, "other": 0}
    for seed in range(30):
        for kind in noisy:
            changes = Changes(advanced=True, geometric=False, ultrasound=kind == "ultrasound")
            pixels = np.array(augment(drawn(box), box, random(seed), changes).image)
            noisy[kind] += bool(pixels[:20, :].std() > 1)
    assert noisy["ultrasound"] == 0
    assert noisy["other"] > 5


def test_nothing_allowed_changes_nothing() -> None:
    image = drawn(as_boxes([30, 40, 75, 90]))
    result = augment(image, None, random(3), STILL)
    assert not result.moved
    assert result.image.tobytes() == image.tobytes()


# Text of answers


@pytest.mark.parametrize("style", BOX_STYLES)
@pytest.mark.parametrize("frame", ["norm1000", "norm1", "pixel"])
def test_numbers_are_replaced_and_everything_else_stays(style: str, frame: str) -> None:
    unit = 0.001 if frame == "norm1" else 1
    boxes = as_boxes([[1, 20, 300, 400], [5, 6, 7, 8]]) * unit
    answer = format_boxes(boxes, ["ship 42", "左肺"], style, frame)  # type: ignore[arg-type]
    found = read_box_answer(answer)
    assert found is not None
    assert np.allclose(found.boxes, boxes)
    assert found.rewrite(found.boxes) == answer
    moved = as_boxes([[101, 20, 999, 1000], [0, 6, 70, 808]]) * unit
    rewritten = found.rewrite(moved)
    parsed = parse_boxes(rewritten)
    assert np.allclose(parsed.boxes, moved)
    assert parsed.labels == parse_boxes(answer).labels
    assert ("".join(rewritten.split("0123456789.")) and "ship 42" in rewritten) or style == "flare"


@pytest.mark.parametrize(
    ("answer", "moved", "expected"),
    [
        ("[[1, 2, 3, 4]]", [10.6, 2, 30, 40], "[[11, 2, 30, 40]]"),
        ("[[1.5, 2, 3, 4]]", [10.66, 2, 30, 40], "[[10.7, 2, 30, 40]]"),
        ('```json\n[\n  {"label": "mass", "bbox_2d": [1, 2, 3, 4]}\n]\n```', [9, 9, 10, 10],
         '```json\n[\n  {"label": "mass", "bbox_2d": [9, 9, 10, 10]}\n]\n```'),
        ("There is one mass at [1, 2, 3, 4].", [9, 9, 10, 10], "There is one mass at [9, 9, 10, 10]."),
        ("[[-0.2, 0.1, 3.0, 4.0]]", [-0.04, 0, 3, 4], "[[0.0, 0.0, 3.0, 4.0]]"),
    ],
)  # fmt: skip
def test_spelling_of_an_answer_is_kept(answer: str, moved: list[float], expected: str) -> None:
    found = read_box_answer(answer)
    assert found is not None
    assert found.rewrite(as_boxes(moved)) == expected


@pytest.mark.parametrize("answer", ["[]", '[{"bbox_2d": []}]', "{}", "<box>[]</box>"])
def test_an_answer_without_objects_stays_as_it_is(answer: str) -> None:
    found = read_box_answer(answer)
    if found is not None:
        assert found.rewrite(as_boxes([])) == answer


@pytest.mark.parametrize(
    "answer",
    ["benign", "", "12", "[[1, 2, 3, 4], [5, 6", "x1: 1, y1: 2, x2: 3, y2: 4", '{"x1": 1, "y1": 2, "x2": 3, "y2": 4}'],
)
def test_answers_that_are_not_rewritten(answer: str) -> None:
    assert read_box_answer(answer) is None


# Rules

BOX = '[{"bbox_2d":[1,2,30,40],"label":"lesion"}]'


@pytest.mark.parametrize(
    ("question", "answer", "geometric", "mirror"),
    [
        ("Is it benign? A: Yes B: No", "A", True, True),
        ("Where is the lesion?", BOX, True, True),
        ("Where is the lesion?", "[]", True, True),
        ("Which side is affected? A: Left B: Right", "A", True, False),
        ("Where is the lesion?", BOX.replace("lesion", "left lung"), True, False),
        ("Where is the lung?", BOX.replace("lesion", "lung_left"), True, False),
        ("Where is the lung?", BOX.replace("lesion", "LeftLung"), True, False),
        ("What is in the film?", BOX.replace("lesion", "tooth36"), True, False),
        ("Number the dental objects.", '{"36":[[1,2,30,40]]}', True, False),
        ("Which quadrant is it in?", "The upper outer one", True, False),
        ("Which eye is it?", "OD", True, False),
        ("Which breast?", "LCC view", True, False),
        ("Which eye is it?", "od", True, True),  # no code in small letters
        ("What is it? A: a B: b C: c D: d E: e F: f G: g H: h I: i J: j K: k L: l", "L", True, True),
        ("Describe the fetal orientation.", "cephalic", False, False),
        ("Is the head tilted?", "yes", False, False),
        ("Is the fetal head rotated? A: Yes B: No", "B", False, False),
        ("Is the angle of progression normal?", "no", False, False),
        ("How is the wisdom tooth impacted? A: mesioangular B: vertical", "A", False, False),
        ("Is the spine straight?", "no, there is scoliosis", False, False),
        ("Where is the implant?", BOX.replace("lesion", "tilted implant"), False, False),
        ("胎头是否倾斜?", "否", False, False),
        ("Is this a parasternal long-axis view?", "yes", True, True),
        ("Is the rectangular, triangular tangle benign?", "yes", True, True),
        ("How is the fetus lying?", "Cephalic transverse, occiput to right", True, False),
        ("Where is the mass?", "at 3 o'clock", False, False),
        ("How many cells are there?", "12", False, True),
        ("What is the angle?", "34.5", False, True),
        ("Which tooth is carious?", "36", False, False),
        ("How large is it?", "about 2 cm", False, False),
        ("How old is the fetus? A: 20-25 weeks B: 25-30 weeks", "A", False, False),
        ("Where is it and how large?", f"{BOX} 12 mm", False, False),
        ("What is in [10, 20, 300, 400]?", "a cyst", False, False),
        ("Where is the lesion?", '[{"bbox_2d":[1,2,1,40]}]', False, False),
        ("Where is the lesion?", "[[1, 2, 3, 4], [5, 6", False, False),
        ("这是左肺吗?", "是", True, False),
    ],
)  # fmt: skip
def test_what_may_move_and_what_may_be_mirrored(question: str, answer: str, geometric: bool, mirror: bool) -> None:
    found = permission(question, answer, images=1)
    assert (found.geometric, found.mirror) == (geometric, mirror), found.reason
    assert bool(found.reason) != found.geometric


@pytest.mark.parametrize(
    ("question", "answer", "photometric"),
    [
        ("Is it benign?", "yes", True),
        ("Image Quality: assess the quality of this scan.", "good", False),
        ("Describe the picture.", "There is motion blur.", False),
        ("What is the bilirubin level?", "12.3", False),
        ("Is the mucosa of normal colour?", "yes", False),
    ],
)
def test_what_may_change_its_tones(question: str, answer: str, photometric: bool) -> None:
    assert permission(question, answer, images=1).photometric == photometric


def test_several_images_are_not_moved_and_no_image_is_not_changed() -> None:
    several = permission("Is it benign?", "yes", images=2)
    assert (several.geometric, several.mirror, several.photometric) == (False, False, True)
    none = permission("Is it benign?", "yes", images=0)
    assert (none.geometric, none.mirror, none.photometric) == (False, False, False)


def test_an_unknown_answer_is_not_moved() -> None:
    assert not permission("Is it benign?", None, images=1).geometric


@pytest.mark.parametrize(
    ("prompt", "question", "expected"),
    [
        ("", "Is there a lesion in this breast ultrasound?", True),
        ("You read fetal sonograms.", "Is it normal?", True),
        ("You are a radiologist.", "Is there a lesion in this smear?", False),
    ],
)
def test_ultrasound_is_told_from_the_prompt(prompt: str, question: str, expected: bool) -> None:
    assert permission(question, "yes", images=1, prompt=prompt).ultrasound == expected


@pytest.mark.parametrize("text", ['[{"box_2d": [10, 10, 30, 30]}]', '[{"points": [[1, 3], [2, 2], [3, 3], [2, 4]]}]'])
def test_boxes_whose_numbers_are_no_corners_are_not_rewritten(text: str) -> None:
    assert read_box_answer(text) is None
