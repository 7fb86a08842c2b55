"""The dataset card that lies beside converted records: what they are, how many, under which terms."""

import html
import re
from collections.abc import Mapping
from typing import Any

CARD = "README.md"


def render_card(report: Mapping[str, Any], licence: str, report_sha256: str) -> str:
    """Markdown with the front matter that dataset hubs read.

    Args:
        report: Contents of report.json.
        licence: Terms of the source, in a sentence.
        report_sha256: Hash of report.json.
    """
    counts, options = report["counts"], report["options"]
    lines = [
        "---",
        "license: other",
        f"pretty_name: {report['source']} as LLaMA-Factory records",
        "---",
        "",
        f"# {report['source']} as LLaMA-Factory records",
        "",
        f"Written by medvl's `preprocess/{report['source']}.py`. Rows in: {counts['in']} = {counts['kept']} kept + "
        f"{counts['dropped']} dropped + {counts['quarantined']} quarantined. [report.html](report.html) shows them, "
        "`report.json` lists every reason, `manifest.json` marks the folder as complete.",
        "",
        "## Terms of use",
        "",
        licence,
        "",
        "## Datasets",
        "",
        *_table(
            ("dataset", "split", "in", "kept", "dropped", "quarantined", "images", "SHA-256 of the question file"),
            [
                (_text(part["dataset"]), part["split"], part["in"], part["kept"], part["dropped"], part["quarantined"],
                 part["pictures"], f"`{part['sha256'][:16]}`")
                for part in report["datasets"]
            ],
        ),
        "",
        "## Entries",
        "",
        "Name one of them under `dataset:` in a recipe. `num_samples` is how many records LLaMA-Factory draws.",
        "",
        *_table(
            ("entry", "records", "num_samples", "SHA-256"),
            [
                (_code(file["entry"]), file["records"], file.get("num_samples", ""), f"`{file['sha256'][:16]}`")
                for file in report["outputs"].values()
            ],
        ),
        "",
        "## Options",
        "",
        *_table(("option", "value"), [(name, _code(value)) for name, value in sorted(options.items())]),
        "",
        f"Boxes in answers: frame `{options.get('frame')}`, style `{options.get('box_style')}`. "
        f"SHA-256 of report.json: `{report_sha256}`.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _text(value: str) -> str:
    """Text that Markdown shows as it is: no HTML, link, image or code comes of a folder's name."""
    return re.sub(r"([\\`*\[\]~])", r"\\\1", html.escape(value, quote=False))


def _code(value: object) -> str:
    """A value as code, between more backticks than it has in a row."""
    text = str(value)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks, space = "`" * (longest + 1), " " if longest else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    return [f"| {' | '.join(map(_cell, row))} |" for row in (head, tuple("---" for _ in head), *rows)]


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").splitlines())
