#!/usr/bin/env python
r"""Makes the images of the documentation from pages that medvl writes, with Debian's Chromium.

    make demo
    python docs/screenshots.py --demo data/demo --cells ../shared/data/bccd_flare

docs/images gets near_duplicate.png, boxes.png and scores.png. The first two show CELLS, a tree of blood smears (BCCD)
in FLARE's layout; without it they show the demo's tree.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

CLONE = Path(__file__).resolve().parents[1]
CHROMIUM = Path("/usr/bin/chromium")
LARGEST = 150_000  # bytes of an image: the README shows three


def main() -> int:
    """Make the images; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=CLONE / "data/demo", help="what `medvl demo` wrote (data/demo)")
    parser.add_argument(
        "--cells", type=Path, default=CLONE.parent / "shared/data/bccd_flare", help="tree of blood smears"
    )
    parser.add_argument("--out", type=Path, default=CLONE / "docs/images", help="folder of the images (docs/images)")
    arguments = parser.parse_args()
    scores = arguments.demo / "qwen3vl/scores_trained/report.html"
    if not (CHROMIUM.is_file() and scores.is_file()):
        parser.error(f"needs {CHROMIUM} (apt-get install chromium) and {scores} (medvl demo)")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        tree = arguments.cells if arguments.cells.is_dir() else arguments.demo / "tree"
        report = convert(tree, Path(folder) / "records")
        with opened(chromium, report, width=520) as page:
            pair = page.locator("#leaks ~ .cards").first.locator(".panel").first
            shoot(page, arguments.out / "near_duplicate.png", page.locator("#leaks"), pair)
            boxes = page.locator("#examples ~ .cards").first.locator(
                ".panel", has=page.locator("h3", has_text="instance")
            )
            shoot(page, arguments.out / "boxes.png", boxes.locator("h3"), boxes.locator(".images .shot"))
        with opened(chromium, scores, width=1000) as page:
            cards = page.locator("section[aria-labelledby=scores] .cards > *")
            shoot(page, arguments.out / "scores.png", page.locator("#scores"), cards.nth(5))
    return 0


def convert(tree: Path, out: Path) -> Path:
    """Convert a tree; returns the page of the report."""
    command: list[str | Path] = [sys.executable, CLONE / "preprocess/flare.py", "--root", tree, "--out", out]
    registry = out.with_suffix(".json")
    subprocess.run([*command, "--dataset-info", registry], check=True, stdout=subprocess.DEVNULL)
    return out / "report.html"


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@contextmanager
def opened(chromium: Any, file: Path, *, width: int) -> Iterator[Any]:
    """A page in a window of `width` CSS pixels, in light colours, three pixels for every two of them."""
    with chromium.new_context(
        viewport={"width": width, "height": 900}, device_scale_factor=1.5, color_scheme="light"
    ) as context:
        page = context.new_page()
        page.goto(file.resolve().as_uri())
        yield page


def shoot(page: Any, file: Path, first: Any, last: Any, margin: int = 8) -> None:
    """Photograph a page from the top of one element to the bottom of another and as wide as it, in few colours.

    Raises:
        ValueError: The image is larger than a README should load.
    """
    top, bottom = first.bounding_box(), last.bounding_box()
    left = min(top["x"], bottom["x"]) - margin
    width = bottom["x"] + bottom["width"] + margin - left
    height = bottom["y"] + bottom["height"] - top["y"] + 2 * margin
    clip = {"x": left, "y": top["y"] - margin, "width": width, "height": height}
    page.screenshot(path=file, full_page=True, clip=clip)
    Image.open(file).convert("RGB").quantize(192, dither=Image.Dither.NONE).save(file, optimize=True)
    if file.stat().st_size > LARGEST:
        raise ValueError(f"{file} has {file.stat().st_size:,} bytes, more than {LARGEST:,}: show less of the page")


if __name__ == "__main__":
    sys.exit(main())
