"""What the classifier's label encoder reads for each task, in the order of its scores: the form of the answer."""

from medvl.tasks import TASKS

LABELS: dict[str, str] = {str(task): spec.label for task, spec in TASKS.items()}
