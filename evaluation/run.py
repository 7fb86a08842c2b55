#!/usr/bin/env python
r"""Score prediction files against references.

examples:
  python evaluation/run.py predictions.json --references FLARE-MLLM-2D
  python evaluation/run.py predictions.jsonl --references data/flare/flare_all_val.json --rules strict,official
  python evaluation/run.py tuned.jsonl --references data/flare/flare_all_val.json --baseline untuned.jsonl
  python evaluation/run.py runs/*/predictions.jsonl --references data/flare/flare_all_val.json --out ablation
  python evaluation/run.py first_36.jsonl --references data/flare/flare_all_val.json --only-predicted
  python evaluation/run.py saves/demo/generated_predictions.jsonl --references data/flare/flare_retino_val.json --json

PREDICTIONS are told apart by their keys: the challenge's predictions.json (or the same as JSON lines), rows with
`prediction` and either `id` or the challenge's keys, and LLaMA-Factory's generated_predictions.jsonl. Challenge files
hold boxes in pixels, the others in the frame that the manifest.json beside the converted references names.

The table goes to standard output, everything else to standard error; OUT gets metrics.json, diagnosis.json,
per_sample.jsonl and report.html, a page to open in any browser; for several PREDICTIONS a folder each, comparison.json
and a page with all of them side by side.
Exit code: 0 scored, 2 wrong arguments, 3 the data was refused, 130 stopped by Ctrl-C.
"""

import sys
from collections.abc import Sequence

if __name__ == "__main__":  # the clone this lies in, with its plugins, whichever is installed, or none
    from pathlib import Path

    CLONE = Path(__file__).resolve().parent.parent
    own_folder = 0 if sys.flags.safe_path else 1  # Python puts it first; its modules are no top-level ones
    sys.path[:own_folder] = [str(CLONE), str(CLONE / "plugins")]


def main(argv: Sequence[str] | None = None) -> int:
    """Score. Returns 0, 2 for wrong arguments, 3 if the data was refused, 130 after Ctrl-C."""
    try:
        from evaluation.command import run  # importing takes seconds, during which Ctrl-C is pressed too

        return run(sys.argv[1:] if argv is None else list(argv), __doc__ or "")
    except KeyboardInterrupt:
        print("stopped; the same command starts over", file=sys.stderr)  # noqa: T201  (rich may not be there yet)
        return 130


if __name__ == "__main__":
    sys.exit(main())
