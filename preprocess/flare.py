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
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # the clone this lies in, with its plugins, whichever is installed, or none
    CLONE = Path(__file__).resolve().parent.parent
    own_folder = 0 if sys.flags.safe_path else 1  # Python puts it first; its modules are no top-level ones
    sys.path[:own_folder] = [str(CLONE), str(CLONE / "plugins")]

from preprocess import script

main = partial(script.main, "flare", __doc__)

if __name__ == "__main__":
    sys.exit(main())
