"""Which option or labels a model's text picks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvl.choices import normal, offered_labels, options
from medvl.conclusions import conclusions, is_refusal
from medvl.picking import pick_labels, pick_one

YES_NO = {"A": "No", "B": "Yes"}
PLANE = {"A": "Non-standard plane", "B": "Standard plane"}
AGE = {"A": "Child (0-17)", "B": "Young Adult (18-39)", "C": "Middle-aged (40-64)", "D": "Elderly (65+)"}
FUNDUS = {"A": "Normal", "B": "Diabetic Retinopathy", "C": "Age-related Macular Degeneration", "D": "Glaucoma",
          "E": "Other"}  # fmt: skip
MARROW = {
    "A": "Normal bone marrow", "B": "Myelofibrosis", "C": "Myelodysplastic syndrome", "D": "Multiple myeloma",
    "E": "Iron-deficiency anemia", "F": "Idiopathic thrombocytopenic purpura", "G": "Hemolytic anemia",
    "H": "Chronic myelogenous leukemia", "I": "Aplastic anemia", "J": "Acute myeloid leukemia",
    "K": "Acute lymphoblastic leukemia",
}  # fmt: skip
KENNEDY = {"A": "Class I", "B": "Class II", "C": "Class III", "D": "Class IV", "E": "Edentulous",
           "F": "Normal (all teeth present)"}  # fmt: skip
LOSS = {"A": "No loss", "B": "Single tooth loss", "C": "Consecutive multiple loss", "D": "Edentulism"}
ENDO = {"A": "Ulcer", "B": "Erosion", "C": "Polyp", "D": "Tumor", "E": "None"}
SUBTYPE = {label: label for label in ("Luminal a", "Luminal b", "Her2-enriched", "triple negative", "Mass", "Benign")}

PERIAPICAL = (
    "As a dentist, what findings would you report for tooth 13 in this X-ray? "
    "Select all that apply from the following, separate multiple selections with a semicolon: "
    "Dental Caries; Periradicular Lesions; Pulp Diseases; "
    "Endodontic Treatment, Restorative Treatment, and Complications."
)
OFFERED = ("Dental Caries", "Periradicular Lesions", "Pulp Diseases",
           "Endodontic Treatment, Restorative Treatment, and Complications")  # fmt: skip


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        pytest.param("Root fragments? A: No, B: Yes", YES_NO, id="colon-and-comma"),
        pytest.param("Plane? A. Non-standard plane B. Standard plane", PLANE, id="full-stop-and-space"),
        pytest.param(
            "Question: final impression? Options: A) Benign lesion B) Malignant lesion C) No lesion",
            {"A": "Benign lesion", "B": "Malignant lesion", "C": "No lesion"},
            id="parenthesis",
        ),
        pytest.param("Which? (A) Benign (B) Malignant", {"A": "Benign", "B": "Malignant"}, id="two-parentheses"),
        pytest.param("Options: " + " ".join(f"{key}: {text}" for key, text in MARROW.items()), MARROW, id="a-to-k"),
        pytest.param(
            "Age? A: Child (0-17), B: Young Adult (18-39), C: Middle-aged (40-64), D: Elderly (65+)",
            AGE,
            id="parentheses-inside",
        ),
        pytest.param("Which?\nA. Normal\nB. Glaucoma", {"A": "Normal", "B": "Glaucoma"}, id="one-per-line"),
        pytest.param(
            "Are panels (A) and (B) alike? Options: A. Panel (A) is dark, (B) is not\nB.Both (A) and (B) are dark",
            {"A": "Panel (A) is dark, (B) is not", "B": "Both (A) and (B) are dark"},
            id="letters-inside-options-on-lines",
        ),
        pytest.param("Vitamin A: how much? A: No, B: Yes", YES_NO, id="letter-before-the-options"),
        pytest.param("How many cells are there?", {}, id="no-options"),
        pytest.param("Is it grade A: or not?", {}, id="one-letter-is-no-choice"),
        pytest.param(PERIAPICAL, {}, id="select-all-has-no-letters"),
    ],
)
def test_options_of_a_question(question: str, expected: dict[str, str]) -> None:
    assert options(question) == expected


def test_offered_labels() -> None:
    assert offered_labels(PERIAPICAL) == OFFERED
    assert offered_labels("Which findings are there?") == ()
    assert offered_labels("Choose from the following: Normal") == ()


@pytest.mark.parametrize("letter", MARROW)
@pytest.mark.parametrize(
    "written",
    ["{}", "{}.", "{})", "({})", "{}:", "**{}**", " {}\n", "`{}`", '"{}"', "Answer: {}", "The answer is {}.",
     "Final answer: {}", "$\\boxed{{{}}}$", "Option {}", "Final Answer: The final answer is $\\boxed{{{}}}$",
     "Some reasoning first.\n\n**Answer:** {}", "Some reasoning first.\nTherefore, the answer is **{}**."],
)  # fmt: skip
def test_a_letter_in_every_decoration(written: str, letter: str) -> None:
    assert pick_one(written.format(letter), MARROW) == (letter, None)
    assert pick_one(written.format(letter.lower()), MARROW) == (letter, None)


@pytest.mark.parametrize("letter", MARROW)
@pytest.mark.parametrize("written", ["{0}: {1}", "{0}. {1}", "{0}) {1}", "({0}) {1}", "{0} - {1}", "{0} {1}", "{1}",
                                     "{0}:{1}", "**{0}: {1}**.", "The diagnosis is {1}.", "{1} ({0})"])  # fmt: skip
def test_a_letter_with_its_text(written: str, letter: str) -> None:
    if written == "{1} ({0})":
        assert pick_one(written.format(letter, MARROW[letter]), MARROW)[0] == letter
    else:
        assert pick_one(written.format(letter, MARROW[letter]), MARROW) == (letter, None)


@pytest.mark.parametrize(
    ("text", "choices", "key"),
    [
        pytest.param("luminal A", SUBTYPE, "Luminal a", id="label-in-another-case"),
        pytest.param("Luminal a.", SUBTYPE, "Luminal a", id="label-ending-in-a-letter"),
        pytest.param("HER2 enriched", SUBTYPE, "Her2-enriched", id="label-without-its-hyphen"),
        pytest.param("Triple-negative", SUBTYPE, "triple negative", id="label-with-a-hyphen"),
        pytest.param("The subtype is Her2-enriched.", SUBTYPE, "Her2-enriched", id="label-in-a-sentence"),
        pytest.param("non standard plane", PLANE, "A", id="option-without-its-hyphen"),
        pytest.param("Yes", YES_NO, "B", id="yes"),
        pytest.param("Yes, there are two fragments near tooth 36.", YES_NO, "B", id="yes-and-why"),
        pytest.param(
            "**No.** The jaw looks healthy to me, and I see no fragments at all.", YES_NO, "A", id="no-and-why"
        ),
        pytest.param("Middle-aged", AGE, "C", id="option-without-its-parenthesis"),
        pytest.param("A: The disc is cupped.", FUNDUS, "A", id="letter-and-why"),
        pytest.param("C\n\nThe plane is standard.", MARROW, "C", id="letter-then-prose"),
        pytest.param(
            "Looking at the options:\nA: Class I is bilateral.\nB: Class II is unilateral.\n\n"
            "The most appropriate class *here* is **B: Class II**, which fits what one sees in this picture.",
            KENNEDY,
            "B",
            id="options-one-by-one-then-the-choice",
        ),
        pytest.param(
            "A: No loss - Possible.\nB: Single tooth loss - Fits.\nC: Consecutive multiple loss - Incorrect, th",
            LOSS,
            None,
            id="cut-off-in-a-list-of-options",
        ),
        pytest.param(
            "The most likely class is B, or potentially C. Looking again, the most plausible is **C: Class III**.",
            KENNEDY,
            "C",
            id="second-thought",
        ),
        pytest.param(
            "Judging by the vessels, I would place the patient in the **Young Adult** age group.", AGE, "B", id="group"
        ),
        pytest.param(
            "One sees a wide gap in the edentulous arch that could mean many things to me.", KENNEDY, None, id="word"
        ),
        pytest.param(
            "The pathology appears to be **E: Other**. It could also be classed as diabetic retinopathy.",
            FUNDUS,
            "E",
            id="letter-given-outweighs-a-name-mentioned",
        ),
        pytest.param("It is A, I think.\nNo, wait.\nFinal answer: B", YES_NO, "B", id="last-conclusion-counts"),
        pytest.param("```\nB\n```", YES_NO, "B", id="fence"),
        pytest.param(
            "Benign lesion, not malignant lesion",
            {"A": "Benign lesion", "B": "Malignant lesion"},
            "A",
            id="the-other-is-denied",
        ),
    ],
)
def test_one_choice(text: str, choices: dict[str, str], key: str | None) -> None:
    assert pick_one(text, choices)[0] == key


@pytest.mark.parametrize(
    ("text", "choices", "reason"),
    [
        pytest.param("", YES_NO, "empty", id="nothing"),
        pytest.param(" ** ", YES_NO, "empty", id="only-decoration"),
        pytest.param("T", ENDO, "letter_not_an_option", id="letter-not-offered"),
        pytest.param("A B", ENDO, "several_letters", id="two-letters"),
        pytest.param("A, C and D", ENDO, "several_letters", id="three-letters"),
        pytest.param("A: Yes", YES_NO, "contradiction", id="letter-of-one-text-of-the-other"),
        pytest.param("**C: Myelofibrosis**", MARROW, "contradiction", id="letter-and-text-disagree"),
        pytest.param("Final answer: Z", YES_NO, "letter_not_an_option", id="conclusion-not-offered"),
        pytest.param("osteoporosis", FUNDUS, "not_an_option", id="text-not-offered"),
        pytest.param("I cannot tell from this picture.", MARROW, "refusal", id="i-is-no-letter-here"),
        pytest.param("I am an AI and cannot provide medical diagnoses.", MARROW, "refusal", id="i-am-an-ai"),
        pytest.param("A definitive diagnosis is out of reach.", MARROW, "not_an_option", id="a-is-an-article-here"),
        pytest.param("E.g. a smear would help.", MARROW, "not_an_option", id="e-of-for-example"),
        pytest.param("B-cell neoplasm", MARROW, "not_an_option", id="b-of-a-compound"),
        pytest.param(
            "This is not a standard plane.", {"A": "Other plane", "B": "Standard plane"}, "not_an_option", id="denied"
        ),
        pytest.param("Glaucoma or diabetic retinopathy", FUNDUS, "ambiguous", id="two-names"),
        pytest.param("The picture shows " + "many things worth a long remark " * 5, FUNDUS, "prose", id="prose"),
        pytest.param("malignant", {}, "not_an_option", id="nothing-offered"),
    ],
)
def test_no_choice_and_why(text: str, choices: dict[str, str], reason: str) -> None:
    assert pick_one(text, choices) == (None, reason)


def test_labels_may_be_single_signs() -> None:
    grades = {grade: grade for grade in ("-", "+", "^", "]", "0", "1")}
    assert pick_one("1", grades) == ("1", None)
    assert pick_one("the grade is 7", grades)[0] is None


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        pytest.param(
            "Dental Caries; Periradicular Lesions", ("Dental Caries", "Periradicular Lesions"), id="semicolons"
        ),
        pytest.param(
            "pulp diseases; DENTAL CARIES.", ("Pulp Diseases", "Dental Caries"), id="spelling-of-the-question"
        ),
        pytest.param(OFFERED[3], (OFFERED[3],), id="label-with-commas-alone"),
        pytest.param(
            f"Dental Caries; {OFFERED[3]}.", ("Dental Caries", OFFERED[3]), id="label-with-commas-among-others"
        ),
        pytest.param(f"Dental Caries, {OFFERED[3]}", ("Dental Caries", OFFERED[3]), id="commas-instead-of-semicolons"),
        pytest.param("Dental Caries; Dental Caries;", ("Dental Caries",), id="each-once"),
        pytest.param("- Dental Caries\n- Pulp Diseases", ("Dental Caries", "Pulp Diseases"), id="bullets"),
        pytest.param("1. Dental Caries\n2. Pulp Diseases", ("Dental Caries", "Pulp Diseases"), id="numbered"),
        pytest.param('["Dental Caries", "Pulp Diseases"]', ("Dental Caries", "Pulp Diseases"), id="json-list"),
        pytest.param("Dental Caries and Pulp Diseases", ("Dental Caries", "Pulp Diseases"), id="and"),
        pytest.param("Dental Caries; cyst", ("Dental Caries", "cyst"), id="label-not-offered-is-kept"),
        pytest.param(
            "I see a dark spot near the root of the tooth in question.\nFinal answer: Dental Caries",
            ("Dental Caries",),
            id="conclusion",
        ),
        pytest.param(
            "The following findings are present on tooth 15:\n* Dental Caries\n* Pulp Diseases",
            ("Dental Caries", "Pulp Diseases"),
            id="announced-list",
        ),
        pytest.param(
            "These findings apply to the tooth that you asked about:\n* **Dental Caries:** a dark spot, "
            "at the crown.\n* **Pulp Diseases:** likely.",
            ("Dental Caries", "Pulp Diseases"),
            id="explained-list",
        ),
        pytest.param("None", (), id="none"),
        pytest.param("None of the above.", (), id="none-of-the-above"),
    ],
)
def test_labels_of_a_select_all_question(text: str, labels: tuple[str, ...]) -> None:
    assert pick_labels(text, OFFERED, ";") == (labels, None)


@pytest.mark.parametrize(
    ("text", "separator", "labels"),
    [
        pytest.param(
            "Pleural Effusion, Pneumonia, Cardiomegaly",
            ",",
            ("pleural effusion", "pneumonia", "cardiomegaly"),
            id="commas",
        ),
        pytest.param("Pleural Effusion, Pneumonia", None, ("pleural effusion", "pneumonia"), id="separator-not-known"),
        pytest.param("a, b, and c; d", None, ("a, b, and c", "d"), id="semicolons-win-where-not-known"),
        pytest.param("Pneumonia; Fibrosis", ",", ("pneumonia", "fibrosis"), id="semicolons-are-read-anyway"),
        pytest.param("Normal", ",", ("normal",), id="one"),
    ],
)
def test_labels_of_an_open_list(text: str, separator: str | None, labels: tuple[str, ...]) -> None:
    assert pick_labels(text, (), separator) == (labels, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("  ;; ", "empty", id="only-separators"),
        pytest.param(
            "I cannot identify any of the listed findings with confidence on this picture of a tooth.",
            "refusal",
            id="refusal",
        ),
        pytest.param("The tooth appears to be in a relatively normal position within the arch.", "prose", id="prose"),
    ],
)
def test_no_labels_and_why(text: str, reason: str) -> None:
    assert pick_labels(text, OFFERED, ";") == (None, reason)


def test_conclusions_come_last_first() -> None:
    assert conclusions("The answer is A.\nFinal Answer: it is $\\boxed{B}$") == ["B", "it is $\\boxed{B}$", "A."]
    assert conclusions("Nothing is concluded here") == []


def test_normal() -> None:
    assert normal(" **Luminal  A**. ") == "luminal a"


def test_is_refusal() -> None:
    assert is_refusal("I can\u2019t say")
    assert not is_refusal("A cannula is visible")


@settings(max_examples=150)
@given(st.text() | st.text(alphabet="AaBbYyEeSsNnOo:;.,*()[]{}\\ \n1-"))
def test_any_text_is_judged_without_an_error(text: str) -> None:
    key, reason = pick_one(text, YES_NO)
    assert (key is None) != (reason is None)
    labels, why = pick_labels(text, OFFERED, ";")
    assert (labels is None) != (why is None)


GRADES = options("Which one? A: Normal, B: Benign, C: Malignant")


@pytest.mark.parametrize(
    "text",
    [
        "The lesion is unlikely to be malignant.",
        "It isn't malignant",
        "It is never malignant",
        "I doubt it is malignant",
        "Malignant is ruled out",
    ],
)
def test_a_denied_choice_is_not_chosen(text: str) -> None:
    assert pick_one(text, GRADES)[0] is None
    assert pick_one(f"{text} It is benign.", GRADES)[0] == "B"


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        pytest.param("No edema", (), id="denied"),
        pytest.param("There is no evidence of edema.", (), id="denied-in-a-sentence"),
        pytest.param("Edema is absent; Mass", ("Mass",), id="denied-behind"),
        pytest.param("Mass is unlikely; Edema", ("Edema",), id="unlikely-behind"),
        pytest.param("Edema is unilateral; Mass is unchanged", ("Edema", "Mass"), id="described-not-denied"),
        pytest.param("The image shows Mass.", ("Mass",), id="words-around"),
        pytest.param("Edema (mild)", ("Edema",), id="remark"),
        pytest.param("Findings: Edema; Mass", ("Edema", "Mass"), id="heading"),
        pytest.param("Oedema", ("oedema",), id="not-offered-stays"),
    ],
)
def test_labels_in_their_words(text: str, labels: tuple[str, ...]) -> None:
    assert pick_labels(text, ("Edema", "Mass"), ";") == (labels, None)
