#!/usr/bin/env python
"""The rules `official` beside the public scorers' own programs, on perturbed prediction files.

    git clone https://github.com/medfm-flare/FLARE25-PaliGemma; git clone https://github.com/medfm-flare/FLARE26-MedGemma
    python benchmarks/official_scorer.py FLARE25-PaliGemma/eval.py SOURCE [SOURCE …]
    python benchmarks/official_scorer.py FLARE26-MedGemma/mle/engine/evaluate.py SOURCE [SOURCE …] --questions 20

A SOURCE is a file of rows in the challenge's form, or a folder of such files; a question that several of them answer
is given one of these answers as reference and one as prediction. Then answers, rows and references are perturbed, a
tree and a prediction file are written, and both programs score them. Nothing of theirs is here: the file named is
imported as it is.
Exit code: 0 if every difference is one that `evaluation/metrics/official.py` documents, else 1, with what differs.
"""

import argparse
import importlib.util
import random
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from types import ModuleType

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from side_by_side import flare25, flare26  # noqa: E402
from side_by_side.perturbations import perturbed, read_pool, write  # noqa: E402

from evaluation import Settings, evaluate  # noqa: E402
from evaluation.scores import Resampling  # noqa: E402


def main() -> int:
    """Compare; returns 1 if anything has no explanation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scorer", type=Path, help="eval.py of FLARE25-PaliGemma or evaluate.py of FLARE26-MedGemma")
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("--perturbations", type=int, default=300)
    parser.add_argument("--questions", type=int, default=40, help="of each task, at most (default: 40)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # scikit-learn's about answers that are no class, Python's about answers like '\\d'
    module, pool = load(args.scorer), read_pool(args.sources)
    explained: Counter[str] = Counter()
    differences: list[str] = []
    for number in range(args.perturbations):
        draw = random.Random(f"{args.seed} {number}")
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            predictions = write(root, *perturbed(pool, draw, args.questions))
            settings = Settings(rules=("official",), resampling=Resampling(), force=True)
            ours = evaluate(predictions, root, settings).evaluation
            if hasattr(module, "run_evaluation"):
                found = flare25.compare(module, root, predictions, ours, explained)
            else:
                found = flare26.compare(module, ours, explained)
        differences += [f"perturbation {number}: {line}" for line in found]
    tasks = ", ".join(f"{len(rows)} {task}" for task, rows in pool.items())
    say = sys.stdout.write
    say(f"{args.perturbations} perturbations of {tasks}: {explained.pop('compared')} numbers compared\n")
    for why, count in explained.most_common():
        say(f"{count:6} {why}\n")
    say("".join(f"{line}\n" for line in differences[:50]) + f"{len(differences)} without an explanation\n")
    return int(bool(differences))


def load(path: Path) -> ModuleType:
    """The scorer's file as a module. What it imports for reports and settings alone is stood in for."""
    for name, attribute in (("green_score", "GREEN"), ("mle", None), ("mle.vars", "ExpConfig")):
        sys.modules[name] = stand_in = ModuleType(name)
        if attribute:
            setattr(stand_in, attribute, lambda *_, **__: None)
    spec = importlib.util.spec_from_file_location("public_scorer", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path}: no Python file")
    module = sys.modules["public_scorer"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if hasattr(module, "run_evaluation"):
        flare25.prepare(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
