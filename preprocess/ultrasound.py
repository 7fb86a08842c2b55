#!/usr/bin/env python
r"""Fetal ultrasound annotations (FADA) to LLaMA-Factory: records, dataset_info entries and a report.

examples:
  python preprocess/ultrasound.py annotations.xlsx --images "Fetal Ultrasound" --ask q7 --split-file splits.json
  python preprocess/ultrasound.py annotations.xlsx --images DIR --ask all --dev-fraction 0.1 --max-side 512   # 8 records an image
  python preprocess/ultrasound.py annotations.xlsx --images DIR --ask report --out data/fada_report --name fada_report
  python preprocess/ultrasound.py annotations.csv --images DIR --ask q7 --prompt simple detailed clinical structured --name prompts
  python preprocess/ultrasound.py annotations.xlsx --images DIR --ask q7 --split-file splits.json --balance classes  # rare labels repeated

Every row ends up kept, dropped or quarantined; the last two with a coded reason in OUT/report.json. What the annotators
wrote is in `source.answer`; what is trained on, canonical words or the label of Q7, in the answer turn.
"""  # noqa: E501  (examples are lines to copy)

import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # the clone this lies in, with its plugins, whichever is installed, or none
    CLONE = Path(__file__).resolve().parent.parent
    own_folder = 0 if sys.flags.safe_path else 1  # Python puts it first; its modules are no top-level ones
    sys.path[:own_folder] = [str(CLONE), str(CLONE / "plugins")]

from preprocess import script

main = partial(script.main, "ultrasound", __doc__)

if __name__ == "__main__":
    sys.exit(main())
