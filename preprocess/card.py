"""The dataset card that lies beside converted records: what they are, how many, under which terms."""

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
            ("dataset", "split", "in", "kept", "dropped", "quarantined", "pictures", "SHA-256 of the question file"),
            [
                (part["dataset"], part["split"], part["in"], part["kept"], part["dropped"], part["quarantined"],
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
                (f"`{file['entry']}`", file["records"], file.get("num_samples", ""), f"`{file['sha256'][:16]}`")
                for file in report["outputs"].values()
            ],
        ),
        "",
        "## Options",
        "",
        *_table(("option", "value"), [(name, f"`{value}`") for name, value in sorted(options.items())]),
        "",
        f"Boxes in answers: frame `{options.get('frame')}`, style `{options.get('box_style')}`. "
        f"SHA-256 of report.json: `{report_sha256}`.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    cells = [head, tuple("---" for _ in head), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in cells]
