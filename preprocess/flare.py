#!/usr/bin/env python
r"""FLARE-Task5-MLLM-2D to LLaMA-Factory: records, dataset_info entries and a report.

examples:
  python preprocess/flare.py --root FLARE-MLLM-2D
  python preprocess/flare.py --root FLARE-MLLM-2D --datasets retino BUSI-det --splits train val --out data/starter --name starter
  python preprocess/flare.py --root FLARE-MLLM-2D --download                           # gated: says how to get access
  python preprocess/flare.py --root FLARE-MLLM-2D --clean --exclude-audit reviewed.csv # reviewed is a marked audit.csv
  python preprocess/flare.py --root FLARE-MLLM-2D --frame pixel --box-style flare      # as the public baselines train

Every row ends up kept, dropped or quarantined; the last two with a coded reason in OUT/report.json.
"""  # noqa: E501  (examples are lines to copy)

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # the clone this lies in, with its plugins, whichever is installed, or none
    CLONE = Path(__file__).resolve().parent.parent
    own_folder = 0 if sys.flags.safe_path else 1  # Python puts it first; its modules are no top-level ones
    sys.path[:own_folder] = [str(CLONE), str(CLONE / "plugins")]

from medvl.console import accept_all_text
from preprocess import unchanged


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a tree. Returns 0, 2 for wrong arguments, 3 if the data was refused, 130 after Ctrl-C."""
    accept_all_text()
    try:
        return _convert(sys.argv[1:] if argv is None else list(argv))
    except KeyboardInterrupt:
        print("stopped; the same command starts over", file=sys.stderr)  # noqa: T201  (see below)
        return 130


def _convert(words: Sequence[str]) -> int:
    command = unchanged.read_command(words)
    if command and (summary := unchanged.summary_if_unchanged(command)):
        print(f"nothing has changed since the last run: {summary}")  # noqa: T201  (rich would take longer to import)
        return 0
    inputs = unchanged.Inputs(command) if command else None
    from preprocess.flare_command import run  # takes as long to import as the inputs to list

    return run(words, __doc__ or "", inputs)


if __name__ == "__main__":
    sys.exit(main())
