"""The questions of the tree that `question_tree` writes: one of each task, and one that is of no task."""

QUESTIONS = {
    "classification": "What is the diagnosis? A: Normal, B: Glaucoma",
    "multi-label classification": "Which findings are there? Select all that apply: Nodule; Fibrosis; Normal.",
    "Detection": "Give the bounding box coordinates [x_min, y_min, x_max, y_max] of the lesion in this ultrasound.",
    "instance_detection": "List all chromosomes. Return a JSON mapping chromosome identifiers to [x_min, y_min, x_max, "
    "y_max] coordinates.",
    "counting": "How many cells are in this microscopic image?",
    "regression": "Determine the percentage of alveolar bone resorption (ABR%) in this OPG.",
    "Report Generation": "Write a radiology report with the findings of this chest X-ray.",
    "poetry": "Please suggest a good restaurant.",
}
