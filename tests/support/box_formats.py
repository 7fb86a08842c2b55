"""The same boxes in every format that people keep them in, written as the tools of each format write them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Labelled:
    """An image with its boxes, pixels, half-open, and a name for each."""

    name: str
    size: tuple[int, int]
    boxes: tuple[Box, ...]
    labels: tuple[str, ...]
    split: str = "train"


# Names with a space and an umlaut, a box at the edge, one without area, an image without any.
SET = (
    Labelled("Zelle ä 1.png", (64, 48), ((0, 0, 20, 15), (10.5, 20.25, 33, 40)), ("RBC", "white cell")),
    Labelled("b.png", (100, 80), ((50, 50, 50, 60), (90, 70, 100, 80)), ("RBC", "RBC")),
    Labelled("c.png", (30, 30), (), ()),
    Labelled("d.png", (64, 64), ((1, 2, 63, 62),), ("white cell",), "val"),
)
CLASSES = ("RBC", "white cell")


def write_images(folder: Path, images: Sequence[Labelled]) -> None:
    """A plain image for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, image in enumerate(images):
        Image.new("RGB", image.size, (place * 40 % 256, 90, 200)).save(folder / image.name)


def classes_of(images: Sequence[Labelled]) -> list[str]:
    """All names, sorted."""
    return sorted({label for image in images for label in image.labels})


def write_coco(file: Path, images: Sequence[Labelled]) -> None:
    """One JSON file, ids from 1, as COCO, CVAT and Roboflow export it."""
    classes = classes_of(images)
    numbers = iter(range(1, 1_000_000))
    content = {
        "info": {"description": "made"},
        "licenses": [],
        "images": [
            {"id": place, "file_name": image.name, "width": image.size[0], "height": image.size[1]}
            for place, image in enumerate(images, 1)
        ],
        "categories": [{"id": place, "name": name, "supercategory": ""} for place, name in enumerate(classes, 1)],
        "annotations": [
            {"id": next(numbers), "image_id": place, "category_id": classes.index(label) + 1, "iscrowd": 0,
             "segmentation": [], "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            for place, image in enumerate(images, 1)
            for (x1, y1, x2, y2), label in zip(image.boxes, image.labels, strict=True)
        ],
    }  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def write_voc(folder: Path, images: Sequence[Labelled]) -> None:
    """`Annotations/` and `ImageSets/Main/`: pixels from 1, both corners inside, as the VOC development kit has them."""
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    for image in images:
        objects = "".join(
            f"<object><name>{label}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
            f"<bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
            for (x1, y1, x2, y2), label in zip(image.boxes, image.labels, strict=True)
        )
        (folder / "Annotations" / f"{Path(image.name).stem}.xml").write_text(
            f"<annotation>\n<folder>JPEGImages</folder>\n<filename>{image.name}</filename>\n<size><width>{image.size[0]}"
            f"</width><height>{image.size[1]}</height><depth>3</depth></size>\n<segmented>0</segmented>\n{objects}"
            "</annotation>\n",
            encoding="utf-8",
        )
    for split in {image.split for image in images}:
        names = [Path(image.name).stem for image in images if image.split == split]
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")


def write_yolo(folder: Path, images: Sequence[Labelled]) -> None:
    """`labels/SPLIT/` with a text file per image, six decimals, and `data.yaml`; images go to `images/SPLIT/`."""
    classes = classes_of(images)
    splits = list(dict.fromkeys(image.split for image in images))
    for split in splits:
        (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
        write_images(folder / "images" / split, [image for image in images if image.split == split])
    for image in images:
        lines = yolo_lines(image, {name: place for place, name in enumerate(classes)})
        (folder / "labels" / image.split / f"{Path(image.name).stem}.txt").write_text(lines)
    names = "\n".join(f"  {place}: {name}" for place, name in enumerate(classes))
    where = "\n".join(f"{split}: images/{split}" for split in splits)
    (folder / "data.yaml").write_text(f"path: .\n{where}\nnames:\n{names}\n")


def yolo_lines(image: Labelled, classes: Mapping[str, int]) -> str:
    """The lines of its text file."""
    width, height = image.size
    return "".join(
        f"{classes[label]} {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} {(x2 - x1) / width:.6f} "
        f"{(y2 - y1) / height:.6f}\n"
        for (x1, y1, x2, y2), label in zip(image.boxes, image.labels, strict=True)
    )


def write_cvat(file: Path, images: Sequence[Labelled]) -> None:
    """CVAT for images 1.1, two decimals."""
    parts = []
    for place, image in enumerate(images):
        boxes = "".join(
            f'    <box label="{label}" source="manual" occluded="0" xtl="{x1:.2f}" ytl="{y1:.2f}" xbr="{x2:.2f}" '
            f'ybr="{y2:.2f}" z_order="0">\n    </box>\n'
            for (x1, y1, x2, y2), label in zip(image.boxes, image.labels, strict=True)
        )
        parts.append(
            f'  <image id="{place}" name="{image.name}" subset="{image.split}" width="{image.size[0]}" '
            f'height="{image.size[1]}">\n{boxes}  </image>\n'
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta></meta>\n'
    file.write_text(f"{head}{''.join(parts)}</annotations>\n", encoding="utf-8")


def write_csv(file: Path, images: Sequence[Labelled]) -> None:
    """A row per box; an image without any has a row without numbers."""
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax,split"]
    for image in images:
        rows = list(zip(image.boxes, image.labels, strict=True)) or [(("", "", "", ""), "")]
        lines += [f"{image.name},{image.size[0]},{image.size[1]},{label},{','.join(map(str, box))},{image.split}"
                  for box, label in rows]  # fmt: skip
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
