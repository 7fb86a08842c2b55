"""Documentation holds: links lead somewhere, commands exist, and blocks marked `run` run, page by page, in a clone.

Info strings: `bash run` is run by bash and `python run` by python, both without torch; of `bash run torch` each line is
run in this process, which has imported it. In all other blocks options, files and keys of recipes must exist.
"""

import contextlib
import functools
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.support.clones import copy_code

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted(
    page
    for page in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("[!.]*/**/*.md")]
    if page.relative_to(REPOSITORY).parts[0] not in ("data", "saves")
)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


@functools.cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("gfm-like", {"linkify": False}).parse(page.read_text())


def links(page: Path) -> Iterator[str]:
    """Addresses of links and images."""
    for token in tokens(page):
        for child in token.children or ():
            if child.type == "link_open":
                yield str(child.attrs["href"])
            elif child.type == "image":
                yield str(child.attrs["src"])


@functools.cache
def anchors(page: Path) -> set[str]:
    """Names of the headings, as GitHub makes them."""
    headings = [
        after for token, after in zip(tokens(page), tokens(page)[1:], strict=False) if token.type == "heading_open"
    ]
    texts = ["".join(child.content for child in heading.children or ()) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


def blocks(page: Path, *kinds: str) -> list[tuple[str, str]]:
    """(info string, text) of the fenced blocks; of these info strings, if any are given."""
    fences = [(token.info.strip(), token.content) for token in tokens(page) if token.type == "fence"]
    return [(info, text) for info, text in fences if not kinds or info in kinds]


# Links


def broken(page: Path, link: str) -> str | None:
    """What is wrong with a link; None for a good one, and for those that leave the repository."""
    if re.match(r"https?://", link):
        return None
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(REPOSITORY):
        return f"{link} leads out of the repository"
    if not target.exists():
        return f"{link} is not there"
    if anchor and anchor not in anchors(target):
        return f"{link}: {target.name} has {', '.join(sorted(anchors(target)))}"
    return None


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    assert [fault for link in links(page) if (fault := broken(page, link))] == []


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("docs/data.md#your-own-data", None),
        ("https://example.org/none", None),  # no network
        ("docs/date.md", "not there"),
        ("docs/data.md#our-own-data", "data.md has"),  # no such heading
        ("../elsewhere.md", "leads out"),
    ],
)
def test_broken_links_are_found(link: str, fault: str | None) -> None:
    found = broken(REPOSITORY / "README.md", link)
    assert found is None if fault is None else fault in str(found)


def test_every_page_of_docs_is_in_the_table_of_contents() -> None:
    listed = {link for link in links(REPOSITORY / "docs/README.md") if "/" not in link}
    assert {page.name for page in REPOSITORY.glob("docs/*.md")} - {"README.md"} <= listed


def test_readme_is_short_and_its_screenshots_are_small() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 150
    shots = [REPOSITORY / link for link in links(REPOSITORY / "README.md") if link.endswith(".png")]
    assert len(shots) == 3
    assert all(shot.stat().st_size < 150_000 for shot in shots)


def test_results_in_the_readme_are_those_that_were_measured() -> None:
    numbers = re.compile(r"\d[\d,.]*\d|\d")
    text = (REPOSITORY / "README.md").read_text()
    rows = re.search(r"\n## Results\n\n.*?\n\|---.*?\n(.*?)\n\n", text, re.DOTALL)
    assert rows
    told, measured = (set(numbers.findall(it)) for it in (rows[1], (REPOSITORY / "benchmarks/RESULTS.md").read_text()))
    assert told - measured == set()


# Commands that are looked at

COMMAND = re.compile(
    r"(?:^|(?<=[\s;]))"
    r"(medvl (?:router )?[a-z]+|python (?:preprocess|evaluation|docs)/\w+\.py|llamafactory-cli \w+)"
    r"(?= |$)(.*)"
)


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """(command, its words), up to what the shell does next."""
    for line in text.replace("\\\n", " ").splitlines():
        if not line.lstrip().startswith("#") and (found := COMMAND.search(line)):
            words = re.split(r"\s(?:\|\|?|&&|;|>)\s?|<<", found[2])[0]
            yield found[1], shlex.split(words, comments=True)


@functools.cache
def options(command: str) -> set[str]:
    """The options that --help of a command knows."""
    out = io.StringIO()
    with pytest.raises(SystemExit), contextlib.redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        program, *words = command.split()
        if program == "medvl":
            from medvl.cli import main

            main([*words, "--help"])
        patch.setattr(sys, "argv", [*words, "--help"])
        patch.setattr(sys, "path", [*sys.path])
        runpy.run_path(str(REPOSITORY / words[0]), run_name="__main__")
    return set(re.findall(r"--[\w-]+", out.getvalue()))


@functools.cache
def recipe_keys() -> set[str]:
    """Every key that `llamafactory-cli train` takes, medvl's among them."""
    pytest.importorskip("llamafactory")
    from llamafactory.hparams import parser as llamafactory

    return {key for part in llamafactory._TRAIN_ARGS for key in part.__dataclass_fields__}


def faults(text: str) -> list[str]:
    """What the commands of a block say that does not exist."""
    found = []
    for command, words in commands(text):
        if command.startswith("llamafactory-cli"):
            recipe, *values = words
            if recipe.startswith("recipes/") and not (REPOSITORY / recipe).is_file():
                found.append(recipe)
            if command.endswith("train"):
                found += [value for value in values if "=" in value and value.split("=")[0] not in recipe_keys()]
        else:
            named = {word.split("=")[0] for word in words if word.startswith("--")}
            found += [f"{command} {option}" for option in sorted(named - options(command))]
        found += [
            word
            for word in words
            if re.fullmatch(r"recipes/\S+\.(yaml|json)", word) and not (REPOSITORY / word).is_file()
        ]
    return found


@pytest.mark.training
@pytest.mark.parametrize("page", [page for page in PAGES if not page.name.startswith("add_a_")], ids=str)
def test_commands_exist(page: Path) -> None:
    """Pages that add something have tests of their own, which apply their diff first."""
    assert [fault for info, text in blocks(page) if info.startswith("bash") or not info for fault in faults(text)] == []


@pytest.mark.training
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("medvl predict --data TREE --out x.jsonl # --nothing", []),  # what a comment says
        ("    medvl predict --data $other --shard 1/4 || break", []),  # in a loop
        ("medvl router route q.jsonl --explain", []),
        ("medvl predict --adaptor DIR", ["medvl predict --adaptor"]),
        ("python preprocess/flare.py \\\n  --rot TREE", ["python preprocess/flare.py --rot"]),  # on the next line
        ("llamafactory-cli train recipes/none.yaml", ["recipes/none.yaml"] * 2),
        ("A=1 llamafactory-cli train recipes/flare_qwen3vl_4b_lora.yaml loss_balanc=x", ["loss_balanc=x"]),
    ],
)
def test_commands_that_do_not_exist_are_found(text: str, fault: list[str]) -> None:
    assert sorted(faults(text)) == sorted(fault)


# Commands that run


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a newcomer has after cloning, without the tests."""
    folders = ("preprocess", "plugins", "evaluation", "recipes", "dataset_info", "docs", "benchmarks")
    return copy_code(REPOSITORY, tmp_path, *folders)


@pytest.fixture
def pristine_templates() -> Iterator[None]:
    """LLaMA-Factory writes `default_system` into its table of templates, for good."""
    from llamafactory.data.template import TEMPLATES

    before = {name: template.default_system for name, template in TEMPLATES.items()}
    yield
    for name, system in before.items():
        TEMPLATES[name].default_system = system


def bash(text: str, clone: Path) -> None:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], cwd=clone, env=os.environ | {"PATH": path}, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def here(line: str, patch: pytest.MonkeyPatch) -> None:
    """Run one command line in this process."""
    words = shlex.split(line)
    if words[:2] == ["python", "-m"]:
        patch.setattr(sys, "argv", words[2:])
        runpy.run_module(words[2], run_name="__main__")
    elif words[:2] == ["python", "-c"]:
        exec(words[2], {})
    elif words[0] == "medvl":
        from medvl.cli import main

        assert main(words[1:]) == 0
    else:
        assert words[:2] == ["llamafactory-cli", "train"], line
        run_recipe(words[2], words[3:])


def run_recipe(recipe: str, values: list[str]) -> None:
    """`llamafactory-cli train RECIPE KEY=VALUE …`, as it reads them."""
    from llamafactory.train.tuner import run_exp
    from omegaconf import OmegaConf

    arguments: Any = OmegaConf.to_container(OmegaConf.merge(OmegaConf.load(recipe), OmegaConf.from_dotlist(values)))
    run_exp(arguments)


# What several pages begin with, and the folder that it makes: run for the first of them, copied for the others.
BEGINNINGS = {
    "python -m medvl.demo.images data/example --train 12 --val 4": "data/example",
    "python -m medvl.demo.checkpoints qwen3vl data/tiny": "data/tiny",
}


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path, Callable[[str], None]], None]:
    """`begin(line, clone, run)`: run a line of BEGINNINGS, or copy what it made for an earlier page."""
    made: dict[str, Path] = {}

    def work(line: str, clone: Path, run: Callable[[str], None]) -> None:
        if line in made:
            shutil.copytree(made[line], clone / BEGINNINGS[line])
        else:
            run(line)
            made[line] = tmp_path_factory.mktemp("made") / "folder"
            shutil.copytree(clone / BEGINNINGS[line], made[line])

    return work


RUN, RUN_PYTHON, RUN_TORCH = RUNS = "bash run", "python run", "bash run torch"


@pytest.mark.training
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, *RUNS)], ids=lambda page: page.name)
def test_blocks_marked_run_do_run(
    page: Path, clone: Path, begin: Callable[..., None], monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    monkeypatch.chdir(clone)
    if blocks(page, RUN_TORCH):
        pytest.importorskip("llamafactory")
        request.getfixturevalue("pristine_templates")
    for info, text in blocks(page, *RUNS):
        if info == RUN_PYTHON:
            bash(f"python -c {shlex.quote(text)}", clone)
            continue
        run = partial(bash, clone=clone) if info == RUN else partial(here, patch=monkeypatch)
        first, _, rest = text.partition("\n")
        if first in BEGINNINGS:
            begin(first, clone, run)
        remaining = rest if first in BEGINNINGS else text
        for part in [remaining] if info == RUN else remaining.splitlines():
            run(part)
