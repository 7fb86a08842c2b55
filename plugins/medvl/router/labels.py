"""What the classifier's label encoder reads for each task, in the order of its scores: the form of the answer."""

from medvl.tasks import Task

LABELS: dict[str, str] = {
    str(task): text
    for task, text in {
        Task.CLASSIFICATION: "choose one option, answer yes or no, name the class or diagnosis",
        Task.MULTI_LABEL: "select all labels that apply, several answers",
        Task.DETECTION: "locate an object, give its bounding box coordinates",
        Task.INSTANCE_DETECTION: "json mapping of every instance to its bounding box",
        Task.COUNTING: "how many objects, count their number",
        Task.REGRESSION: "measure or estimate a value, percentage, size, age or angle",
        Task.REPORT: "write a report, describe the findings in sentences",
    }.items()
}
