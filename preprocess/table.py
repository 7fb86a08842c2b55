#!/usr/bin/env python
r"""Your own data to LLaMA-Factory: a table of questions, labels or boxes, and a folder of images.

examples:
  python preprocess/table.py mine.csv --images images --name mine
  python preprocess/table.py mine.csv --images images --name mine --dry-run            # ten records, nothing registered
  python preprocess/table.py labels.xlsx --images png --name skin --question "Which lesion is it?"
  python preprocess/table.py boxes.csv --images png --name cxr --question "Where are the findings?" --source-frame pixel
  python preprocess/table.py instances_train.json --images train --name cells          # COCO; a question is made
  python preprocess/table.py classes --name lesions --question "What is it?"           # a folder per class
  python preprocess/table.py rows.jsonl --columns question=qa.q answer=qa.a image=file patient=pid --dev-fraction 0.1

DATA is CSV, TSV, Excel, JSON, JSON Lines, Parquet, a folder of such files, a saved dataset of the library datasets,
OWNER/NAME on the Hugging Face Hub; COCO, Pascal VOC, YOLO, CVAT, a folder per class, a chat file, MedMNIST. Every row
ends up kept, dropped or quarantined; the last two with a coded reason in OUT/report.json.
"""

import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # the clone this lies in, with its plugins, whichever is installed, or none
    CLONE = Path(__file__).resolve().parent.parent
    own_folder = 0 if sys.flags.safe_path else 1  # Python puts it first; its modules are no top-level ones
    sys.path[:own_folder] = [str(CLONE), str(CLONE / "plugins")]

from preprocess import script

main = partial(script.main, "table", __doc__)

if __name__ == "__main__":
    sys.exit(main())
