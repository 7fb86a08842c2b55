"""What the classifier's label encoder reads for each task, in the order of its scores: the form of the answer.

The last one stands for prompts that are no task. A classifier that may say so keeps more of them out than one which
has only low scores to say it with.
"""

from medvl.instructions import GENERAL
from medvl.tasks import TASKS

TASK_LABELS: dict[str, str] = {str(task): spec.label for task, spec in TASKS.items()}
LABELS: dict[str, str] = {
    **TASK_LABELS,
    GENERAL: "no medical image: advice, knowledge, writing, translation, chat, code, everyday photo",
}
