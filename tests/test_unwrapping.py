"""The answer in a text with thoughts, tags and remnants of a chat template."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvl.answers import parse_answer
from medvl.postprocessing import postprocess
from medvl.tasks import Task
from medvl.unwrapping import only_thoughts, unwrap

WRAPPED = {
    "stray end of thoughts": "It may be A.</think>\n\n{}",
    "only the end of thoughts": "</think>\n\n{}",
    "thoughts": "<think>A?</think>{}",
    "thoughts in capitals": "<THINK>A?</THINK>\n{}",
    "thoughts in other words": "<reasoning>A?</reasoning>\n{}",
    "two ends": "A?</think>No.</think>{}",
    "empty thoughts": "<think>\n\n</think>\n\n{}",
    "second thoughts cut off": "{}\n<think>But A",
    "thoughts behind": "{}\n<think>I am sure.</think>",
    "Mistral": "[THINK]A?[/THINK]{}",
    "Kimi": "◁think▷A?◁/think▷{}",
    "MedGemma": "<unused94>thought\nA?<unused95>{}",
    "gpt-oss": "<|channel|>analysis<|message|>A?<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
    "GLM": "A?\n<|begin_of_box|>{}<|end_of_box|>",
    "answer tags": "So:\n<answer>{}</answer>",
    "answer cut off": "<answer>{}",
    "answer without start": "{}</answer>",
    "last answer": "<answer>A</answer> or <answer>{}</answer>",
    "final answer": "<final_answer>\n{}\n</final_answer>",
    "thoughts that never close around an answer": "<think>A? <answer>{}</answer>",
    "end of turn": "{}<|im_end|>",
    "end of text": "{}</s>",
    "whole turn": "<|im_start|>assistant\n{}<|im_end|>\n",
    "turn of Gemma": "<start_of_turn>model\n{}<end_of_turn>",
    "turn of Llama": "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>",
    "speaker without tokens": "assistant\n{}",
    "speaker with a colon": "Assistant: {}",
    "the prompt before it": "<|im_start|>user\nA or B?<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>",
    "instruction before it": "[INST] A or B? [/INST] {}",
    "plays the user": "{}<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\nA",
    "plays the user without tokens": "{}\nuser\nAnd now?\nassistant\nA",
    "padding": "<pad><pad>{}<|endoftext|><|endoftext|>",
}
ANSWERS = {
    Task.CLASSIFICATION: ("B", "B"),
    Task.MULTI_LABEL: ("Dental Caries; Pulp Diseases", ("dental caries", "pulp diseases")),
    Task.COUNTING: ("12", 12.0),
    Task.REPORT: ("The heart is normal.", "The heart is normal."),
}


@pytest.mark.parametrize("task", ANSWERS)
@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED.keys())
def test_only_the_answer_is_read(wrapped: str, task: Task) -> None:
    answer, value = ANSWERS[task]
    question = "Which? A: No, B: Yes" if task is Task.CLASSIFICATION else ""
    assert parse_answer(wrapped.format(answer), task, question=question).value == value


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED.keys())
def test_boxes_of_thoughts_do_not_count(wrapped: str) -> None:
    text = re.sub(r"\bA\b", "[[9, 9, 10, 10]]", wrapped).format("[[1, 2, 3, 4]]")
    value = parse_answer(text, Task.DETECTION).value
    assert value.boxes.tolist() == [[1, 2, 3, 4]]  # type: ignore[union-attr]


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("text", ["<think>It may be B, or [[1, 2, 3, 4]], or 12", "B</think>", "<think></think>\n"])
def test_thoughts_are_no_answer(text: str, task: Task) -> None:
    answer = parse_answer(text, task, question="Which? A: No, B: Yes" if task is Task.CLASSIFICATION else "")
    assert (answer.value, answer.reason, answer.missing) == (None, "only_thoughts", False)


@pytest.mark.parametrize("text", ["<|im_end|>", "<answer></answer>", "<s></s>"])
def test_a_template_around_nothing_is_a_missing_answer(text: str) -> None:
    assert parse_answer(text, Task.REPORT).missing
    assert not only_thoughts(text)


@pytest.mark.parametrize(
    "text",
    ["size < 5 and > 3", "Human", "user", "<ref>a</ref><box>[[1,2,3,4]]</box>",
     "<|object_ref_start|>a<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>", "I think so", " B \n",
     "The model shows a user interface.\nSystem review: normal."],
)  # fmt: skip
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert unwrap(text) == text


def test_a_report_is_handed_on_without_thoughts() -> None:
    assert postprocess("Hm.</think>\n\nThe heart is normal.", "text").text == "The heart is normal."
    assert postprocess(" The heart is normal.\n", "text").text == " The heart is normal.\n"


@given(st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "<|im_end|>", "B", "\n", "user\n",
                                 "<|im_start|>assistant\n", "[/INST]", "<s>", " "])).map("".join))  # fmt: skip
def test_any_mixture_is_read(text: str) -> None:
    assert len(unwrap(text)) <= len(text)


@pytest.mark.parametrize("atom", ["<think>", "</think>", "<answer>", "</answer>", "<|im_start|>", "<|im_end|>", "< ",
                                  "<|channel|>analysis<|message|>", "\nuser", "user\n", "[INST]", "<|"])  # fmt: skip
def test_time_is_linear_in_the_length(atom: str) -> None:
    def seconds(length: int) -> float:
        text = "<" + (atom * length)[:length]
        start = time.process_time()
        unwrap(text)
        return time.process_time() - start

    # Four times the text takes four times as long, sixteen if quadratic. The best of some runs: the machine is shared.
    assert min(seconds(80_000) for _ in range(3)) < 10 * min(seconds(20_000) for _ in range(3)) + 0.004
