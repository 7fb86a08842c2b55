#!/usr/bin/env python
"""Grounding sets (images with named boxes) to LLaMA-Factory: records, dataset_info entries and a report.

examples:
  python preprocess/grounding.py train.json --images Images_train --out data/ships --dataset-info dataset_info/dataset_info.json
  python preprocess/grounding.py annotations/ --images images --class-mode each --negatives 1 --order raster
  python preprocess/grounding.py train.json --images Images_train --box-style qwen_vl1       # as TerraQuery trains

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

main = partial(script.main, "grounding", __doc__)

if __name__ == "__main__":
    sys.exit(main())
