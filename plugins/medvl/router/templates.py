"""Questions made up by this project, for tasks of which the training files hold none, and prompts that are no task.

Slots are filled at random, so that the topic tells nothing about the task: what stays the same is the form of answer.
"""

import random
import re
from collections.abc import Callable, Sequence

from medvl.instructions import GENERAL
from medvl.tasks import Task

_THINGS = (
    "cells", "nuclei", "lesions", "nodules", "polyps", "teeth", "chromosomes", "vertebrae", "follicles", "parasites", "colonies",
    "fractures", "tumours", "neutrophils", "mitotic figures", "glands", "ulcers", "implants", "vessels", "cysts", "ribs", "platelets",
    "microcalcifications", "lymph nodes", "bacteria", "haemorrhages", "drusen", "stones", "moles", "spots", "instruments", "embryos",
)  # fmt: skip
_ONES = (
    "lesion", "nodule", "mass", "tumour", "polyp", "fracture", "optic disc", "fetal head", "pubic symphysis", "left ventricle", "liver",
    "catheter tip", "haemorrhage", "ulcer", "cyst", "heart", "spleen", "effusion", "aneurysm", "tooth 36", "nucleus", "macula", "placenta",
    "stent", "wound", "abscess", "gallbladder", "thyroid", "infarct", "melanoma", "mandible", "right lung",
)  # fmt: skip
_PICTURES = (
    "image", "scan", "radiograph", "chest X-ray", "CT slice", "MRI", "ultrasound image", "smear", "slide", "fundus photograph",
    "mammogram", "panoramic radiograph", "microscopy image", "endoscopic frame", "dermoscopy picture", "OCT B-scan", "photo",
    "histology section", "knee film", "echocardiogram", "specimen", "picture", "biopsy", "case", "study", "field of view",
)  # fmt: skip
_LABELS = (
    "normal", "benign", "malignant", "effusion", "cardiomegaly", "pneumonia", "caries", "pulpitis", "glaucoma", "drusen", "nevus",
    "melanoma", "ulcer", "polyp", "erosion", "mild", "moderate", "severe", "fracture", "fibrosis", "oedema", "haemorrhage", "adequate",
    "inadequate", "leukemia", "lymphoma", "standard plane", "non-standard plane", "consolidation", "atelectasis", "cyst", "abscess",
    "grade 1", "grade 2", "grade 3", "left", "right", "upper", "lower", "none", "other", "stenosis", "infarct",
)  # fmt: skip
_MEASURES = (
    "percentage of necrosis", "age of the patient", "ejection fraction", "angle of progression", "bone age", "diameter of the aorta",
    "thickness of the cortex", "size of the lesion", "volume of the tumour", "gestational age", "cardiothoracic ratio", "bone loss percentage",
    "length of the femur", "area of the wound", "proliferation index", "tumour proportion", "head circumference", "depth of invasion",
    "distance between the condyles", "stenosis percentage", "degree of resorption", "rate of bone loss", "height of the vertebra",
)  # fmt: skip
_UNITS = ("mm", "cm", "percent", "degrees", "years", "weeks", "months", "millilitres", "micrometres", "days", "%")
_PARTS = (
    "heart", "lungs", "bones", "mediastinum", "liver", "brain", "retina", "skin", "breast", "kidneys", "jaw", "spine", "joint",
    "bowel", "thyroid", "prostate", "vessels", "optic nerve", "marrow", "soft tissues", "pleura", "airways",
)  # fmt: skip
_DIAGNOSES = ("diagnosis", "category", "stage", "grade", "type", "subtype", "modality", "organ", "abnormality", "plane", "class", "condition")

_QUESTIONS: dict[str, tuple[str, ...]] = {
    Task.CLASSIFICATION: (
        "Is the {one} normal in this {picture}?",
        "Does this {picture} show a {one}?",
        "Are there any {things} in the {picture}? {options}",
        "Can a {one} be seen here? {options}",
        "Has the {one} been affected?",
        "Is there evidence of a {one}?",
        "Do the {things} look abnormal?",
        "What is the most likely {diagnosis}? {options}",
        "What {diagnosis} does this {picture} show?",
        "Which {diagnosis} fits this {picture} best? {options}",
        "Question: Which of the following is correct? Options: {options}",
        "Which option describes the {one}? {options}",
        "How would you classify the {one}? {options}",
        "How should this {picture} be categorised? {options}",
        "Determine whether the {one} is {label} or {label}.",
        "Decide if this {picture} contains {things}. Answer yes or no.",
        "Name the {diagnosis} seen on this {picture}.",
        "Classify the {one} as {label}, {label} or {label}.",
        "Assign the {picture} to one of these categories: {label}, {label}, {label}.",
        "{label} or {label}?",
        "Pick one: {label}; {label}; {label}.",
        "Answer with a single letter. {options}",
        "Grade the {one} in this {picture}.",
        "Diagnose this {picture}.",
        "Identify the {diagnosis} of the {one}.",
        "How many {things} are present? {options}",
        "Where is the {one} located? {options}",
        "Estimate the {measure}. {options}",
        "Describe the {one} by choosing one option. {options}",
        "Based on the {picture}, what is the {diagnosis} of the {one}? {options}",
        "Would you call the {one} {label}?",
        "true or false: the {one} is {label}",
    ),
    Task.MULTI_LABEL: (
        "Select all that apply: {labels}.",
        "Which of the following apply to this {picture}? {labels}",
        "Which of these findings are present? Several answers are possible. {options}",
        "Choose every label that fits the {picture}: {labels}",
        "Mark all conditions you can see, separated by semicolons: {labels}.",
        "What findings would you report for the {one}? Select all that apply from the following, separate multiple selections with a semicolon: {labels}.",  # noqa: E501
        "List every disease visible on this {picture}.",
        "Name all abnormalities of the {part}, separated by commas.",
        "Give all applicable diagnoses for this {picture}.",
        "Tick each box that is correct: {labels}",
        "More than one option can be right. {options}",
        "Assign one or more of these labels: {labels}",
        "Identify all pathologies in the {picture} from this list: {labels}.",
        "Which abnormalities does this {picture} show? Multiple labels allowed.",
        "Pick all options that are true. {options}",
        "Indicate all that are present in the {part}: {labels}",
        "Which diseases are present in this {picture}?",
        "Return every matching label, comma separated: {labels}",
    ),
    Task.DETECTION: (
        "Give the bounding box of the {one} as [x_min, y_min, x_max, y_max].",
        "Provide the bounding box coordinates of all {things} in the {picture}.",
        "Locate the {one} in this {picture}.",
        "Where is the {one}? Answer with box coordinates.",
        "Find the {things} and return their boxes as nested lists.",
        "Draw a tight rectangle around the {one}.",
        "Detect the {things} in this {picture} and output [x1, y1, x2, y2] for each.",
        "Is there a {one}? If so, give its bounding box.",
        "Localise the {one} with pixel coordinates.",
        "What are the coordinates of the {one} in this {picture}?",
        "Report the position of the {one} as xmin, ymin, xmax, ymax.",
        "Describe where the {things} are with [x_min, y_min, x_max, y_max].",
        "How many {things} are there? Give a box for each of them.",
        "Outline the {one}.",
        "Point out the {one} on the {picture}.",
        "Where on the {picture} is the {one}?",
        "Which region holds the {one}? State its corners.",
        "Enclose the {one} in a bounding box.",
        "Return a JSON list of boxes of the {things}.",
        "Pinpoint the {things}.",
        "Show me where the {one} is.",
        "Mark the {one} with a box.",
    ),
    Task.INSTANCE_DETECTION: (
        "List all {things} with their boxes. Return a JSON mapping identifiers to [x_min, y_min, x_max, y_max].",
        "Return a JSON object whose keys are the types of {things} and whose values are lists of bounding boxes.",
        "Detect every one of the {things} and give its id and box as a JSON dictionary.",
        "For each of the {things} provide an identifier and its coordinates in a map.",
        'Find all {things}. Format: {{"1": [[x_min, y_min, x_max, y_max]], "2": [[x_min, y_min, x_max, y_max]]}}',
        "Create an inventory of all {things} with their locations, as a JSON mapping.",
        "Map each of the {things} in this {picture} to its bounding box, keyed by number.",
        "Give the boxes of the {things} grouped by type, as JSON.",
        "Annotate each of the {things} individually: a dictionary from name to box.",
        "Output a JSON where each key names one of the {things} and each value is an array of boxes.",
        "Label all {things} separately and give every instance its own box in JSON.",
        "Perform instance detection of the {things}: class to list of boxes.",
    ),
    Task.COUNTING: (
        "How many {things} are there?",
        "How many {things} can be seen in this {picture}?",
        "Count the {things}.",
        "Count all {things} in this {picture}.",
        "What is the number of {things}?",
        "Give the total number of {things} in the {picture}.",
        "Report the {one} count.",
        "State how many {things} this {picture} contains.",
        "Determine the total of {things} shown.",
        "Quantify the number of {things}.",
        "Tally the {things} in this {picture}.",
        "Number of {things}?",
        "Enumerate the {things} visible in the {picture}.",
        "Perform a count of the {things}.",
        "I need to know how many {things} appear here.",
        "What is the total count of {things} in this {picture}?",
        "Compute the quantity of {things}.",
        "Estimate how many {things} the {picture} shows; an integer will do.",
        "{things}: how many?",
        "Add up the {things} in view.",
    ),
    Task.REGRESSION: (
        "What is the {measure} in this {picture}?",
        "Estimate the {measure}.",
        "Estimate the {measure} in {unit}.",
        "Measure the {measure} on this {picture}.",
        "Calculate the {measure} from the {picture}.",
        "Determine the {measure} ({unit}).",
        "Predict the {measure} from this {picture}, in {unit}.",
        "Quantify the {measure}.",
        "Report the {measure} of this {picture}.",
        "How large is the {one}, in {unit}?",
        "How old is the patient in this {picture}?",
        "How wide is the {one}?",
        "How many {unit} does the {one} measure?",
        "What percentage of the {part} is affected?",
        "What proportion of the {things} is positive?",
        "Give the {measure} as a number.",
        "Assess the {measure} by examining this {picture}.",
        "Compute the ratio of the {one} to the {part}.",
        "What is the {unit} value of the {measure}?",
        "To what extent, in percent, is the {part} involved?",
    ),
    Task.REPORT: (
        "Write a report for this {picture}.",
        "Describe the findings in this {picture}.",
        "Describe the {part}.",
        "Summarise the findings of the {picture}.",
        "What does the {picture} show? Answer in sentences.",
        "Give your impression of the {part} in this {picture}.",
        "What are the findings regarding the {part}?",
        "Generate the findings section.",
        "Dictate a radiology report of the {picture}.",
        "Provide a description of the {part} on this {picture}.",
        "Comment on the {part}.",
        "Interpret this {picture} in a short paragraph.",
        "What do you see in this {picture}?",
        "Compose the impression for the {picture}.",
        "Explain the appearance of the {part}.",
        "Tell me about the {part} in this {picture}.",
        "Report on the {part} and the {part}.",
        "Narrate what is visible in the {part}.",
        "Please provide a summary of the {part}, including number and size of any {things}.",
        "Write one sentence about the {part}.",
    ),
    GENERAL: (
        "Hi there", "Good evening, how are you?", "Thank you so much", "What can you do?", "Who made you?", "Please introduce yourself.",
        "Tell me something funny.", "Write a love letter.", "Compose a song about summer.", "Write a Java class for a bank account.",
        "How do I sort a list in Rust?", "Explain recursion to a child.", "Debug this program: print(1", "Translate this sentence into German.",
        "What is the tallest mountain on Earth?", "Who painted the Mona Lisa?", "How far is the moon?", "How many continents are there?",
        "Which film won the Oscar last year?", "What time is it in Tokyo?", "Is it going to snow this weekend?", "Convert 10 miles to kilometres.",
        "What is 17 plus 25?", "Solve x squared equals 9.", "Give me a recipe for pancakes.", "Recommend a book about history.",
        "What should I wear to an interview?", "How can I save money?", "Describe the taste of mango.", "Summarise this article about politics.",
        "Write a report on renewable energy.", "List the largest cities in Asia.", "Count from one to twenty.", "Where can I buy cheap flights?",
        "Which phone is better, A or B?", "Is coffee good for me?", "How much water should I drink?", "What is the dose of paracetamol for adults?",
        "What are the side effects of statins?", "Can I exercise after surgery?", "How is diabetes treated?", "What causes migraine?",
        "What are the symptoms of flu?", "How does an X-ray machine work?", "Explain the difference between CT and MRI.",
        "What is the history of the stethoscope?", "I feel dizzy, what should I do?", "My back hurts when I sit.", "Which doctor treats kidney stones?",
        "How long does a broken arm take to heal?", "Is this medication safe with alcohol?", "What is the best treatment for lung cancer?",
        "Who discovered penicillin?", "What does the word malignant mean?", "How many people have asthma?", "What percentage of adults smoke?",
        "Write an abstract about machine learning in radiology.", "Draft an e-mail to a patient.", "What are the guidelines for breast screening?",
        "Should I get vaccinated?", "asdfgh", "...", "test", "ok", "yes", "blah blah blah", "qwertz uiop", "I like trains.",
        "The quick brown fox jumps over the lazy dog.", "Make a table of planets and their moons.", "Play some music.", "Set an alarm for seven.",
        "What is the price of gold?", "Find me a hotel in Rome.", "Is the earth flat?", "Where was Einstein born?", "Which country has the most lakes?",
        "Estimate the population of Brazil.", "How old is the pyramid of Giza?", "Measure my happiness.", "Locate the nearest petrol station.",
        "Detect sarcasm in this tweet.", "Classify this e-mail as spam.", "Select all verbs in the sentence.", "Describe a sunset.",
    ),
}  # fmt: skip


def templates(task: str) -> int:
    """How many wordings there are for a task (or `general`)."""
    return len(_QUESTIONS[task])


def make_questions(task: str, number: int, seed: int = 0) -> list[tuple[str, int]]:
    """Different questions for a task (or prompts for `general`), as many of `number` as there can be.

    The wordings are used in turn; the same arguments give the same questions.

    Returns:
        (question, number of its wording).
    """
    rng = random.Random(f"{seed}/{task}")
    found: dict[str, int] = {}
    wordings = _QUESTIONS[task]
    for attempt in range(4 * number):
        if len(found) >= number:
            break
        place = attempt % len(wordings)
        found.setdefault(_filled(wordings[place], rng), place)
    return list(found.items())


def _filled(wording: str, rng: random.Random) -> str:
    slots: dict[str, Callable[[], str]] = {
        "thing": lambda: rng.choice(_THINGS), "things": lambda: rng.choice(_THINGS), "one": lambda: rng.choice(_ONES),
        "picture": lambda: rng.choice(_PICTURES), "label": lambda: rng.choice(_LABELS), "measure": lambda: rng.choice(_MEASURES),
        "unit": lambda: rng.choice(_UNITS), "part": lambda: rng.choice(_PARTS), "diagnosis": lambda: rng.choice(_DIAGNOSES),
        "options": lambda: _options(_some_labels(rng), rng),
        "labels": lambda: rng.choice(("; ", ", ")).join(_some_labels(rng)),
    }  # fmt: skip
    filled = re.sub(r"\{(\w+)\}", lambda slot: slots[slot[1]](), wording)
    return filled.replace("{{", "{").replace("}}", "}")


def _some_labels(rng: random.Random) -> list[str]:
    return rng.sample(_LABELS, rng.randint(2, 6))


def _options(labels: Sequence[str], rng: random.Random) -> str:
    mark = rng.choice(("{}: ", "{}) ", "{}. ", "({}) "))
    letters = rng.choice(("ABCDEF", "abcdef", "123456"))
    parts = [mark.format(letter) + label for letter, label in zip(letters, labels, strict=False)]
    return rng.choice(("", "Options: ")) + rng.choice((" ", ", ")).join(parts)
