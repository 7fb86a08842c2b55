#!/usr/bin/env python
r"""M3LLM's figures and PMC-MI-Bench to LLaMA-Factory: records, dataset_info entries and a report.

examples:
  python preprocess/pmc.py PMC-data.json --images full_data_images          # the meta file: all its sets
  python preprocess/pmc.py boundingboxVQA.jsonl --images full_data_images   # one training file
  python preprocess/pmc.py stage5_multi_subimage.json --images mm_image_files
  python preprocess/pmc.py benchmark_data --images benchmark_images --out data/pmc_mi_bench --name pmc_mi_bench

Entries are called like the sets of the meta file: pmc_qa_bbox_train, …, and pmc_all_train for all. Files of
PMC-MI-Bench become the split test. Every question ends up kept, dropped or quarantined; the last two with a coded
reason in OUT/report.json.
"""

import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # the clone this lies in, with its plugins, whichever is installed, or none
    CLONE = Path(__file__).resolve().parent.parent
    own_folder = 0 if sys.flags.safe_path else 1  # Python puts it first; its modules are no top-level ones
    sys.path[:own_folder] = [str(CLONE), str(CLONE / "plugins")]

from preprocess import script

main = partial(script.main, "pmc", __doc__)

if __name__ == "__main__":
    sys.exit(main())
