"""The answer in a model's text: without thoughts, the tags around an answer, and remnants of a chat template.

Models write their thoughts before the answer, between marks. A template that opens them itself leaves only the closing
mark in the text; a text that was cut off has only the opening one, and then there is no answer behind it.
"""

import re

_THOUGHTS = r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|seed:think)"
_THOUGHT = re.compile(
    rf"""(?P<open><\s?{_THOUGHTS}\s?>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<unused94>(?:thought\b)?)
       | (?P<close><\s?/\s?{_THOUGHTS}\s?>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<unused95>)""",
    re.VERBOSE | re.IGNORECASE,
)
_CHANNEL = re.compile(r"<\|channel\|>analysis<\|message\|>.*?(?:<\|end\|>|\Z)", re.DOTALL)  # gpt-oss thinks here
_ANSWER = re.compile(
    r"""(?P<open><(?:final_?)?answer>|<\|begin_of_(?:box|solution)\|>|<\|channel\|>final<\|message\|>)
      | (?P<close></(?:final_?)?answer>|<\|end_of_(?:box|solution)\|>|<\|return\|>)""",
    re.VERBOSE | re.IGNORECASE,
)
# A turn begins with its speaker: in tokens of its own, or alone on its line where the tokens were dropped.
_SPEAKER = r"(?:assistant|model|user|human|system|gpt)"
_TURN = re.compile(
    rf"""(?:<\|im_start\|>|<start_of_turn>|<\|start_header_id\|>|<\|start\|>)\s?(?P<named>{_SPEAKER})
           (?:<\|end_header_id\|>)?:?
       | <\|(?P<token>assistant|user|system)\|>
       | (?<=\n)(?P<alone>{_SPEAKER})[^\S\n]*:?[^\S\n]*(?:\n|\Z)
       | \A\s*(?P<first>assistant(?=\s*[:\n])|model(?=\s*\n))\s*:?
       | (?P<instruction>\[INST\]) | (?P<instructed>\[/INST\])""",
    re.VERBOSE | re.MULTILINE | re.IGNORECASE,
)
_END = re.compile(
    r"<\|im_end\|>|<end_of_turn>|<\|eot_id\|>|<\|endoftext\|>|<\|end_of_text\|>|<\|end\|>|</s>|<eos>"
    r"|<[|\uff5c]end\u2581of\u2581sentence[|\uff5c]>"
)
# Any other token, but for those that box answers are written with.
_TOKEN = re.compile(
    r"<[|\uff5c](?!(?:object_ref|box|quad|ref|det)\w*[|\uff5c]>|/(?:ref|det))[^<>|\uff5c\n]{1,40}[|\uff5c]>"
    rf"|<(?:s|bos|pad|unk|IMG_CONTEXT|image)>|</?img>|<{_THOUGHTS}\s?/>"
)
# One of these is in every text that has something around its answer; to look for them costs next to nothing.
_SIGNS = ("<", "◁", "[think]", "[/think]", "[inst]", "[/inst]", "assistant", "model\n", "\nmodel", "\nuser", "\nhuman",
          "\nsystem", "\ngpt")  # fmt: skip


def unwrap(text: str) -> str:
    """The answer in a text; the text as it is where nothing is around it, empty where there are only thoughts.

    >>> unwrap("Let me see.</think>\\n\\nDental Caries<|im_end|>")
    'Dental Caries'
    >>> unwrap("<think>It may be")
    ''
    """
    folded = text.lower()
    if not any(sign in folded for sign in _SIGNS):  # nearly every text
        return text
    found = _between_answer_tags(_without_thoughts(_first_turn(_CHANNEL.sub("", text))))
    if "<" in found:
        found = _TOKEN.sub("", found)
    return text if found == text else found.strip()


def only_thoughts(text: str) -> bool:
    """Whether a text has thoughts and no answer."""
    return not unwrap(text).strip() and bool(_THOUGHT.search(text) or _CHANNEL.search(text))


def _first_turn(text: str) -> str:
    """What the assistant says first; a model that goes on plays the user, and then answers itself."""
    assistant, start = True, 0
    for turn in [*_TURN.finditer(text), None]:
        said = _up_to_its_end(text[start : turn.start() if turn else len(text)])
        if assistant and said.strip():
            return said
        if turn:
            assistant = turn[turn.lastgroup or 0].lower() in ("assistant", "model", "gpt", "[/inst]")
            start = turn.end()
    return ""


def _up_to_its_end(turn: str) -> str:
    """The first part of a turn that is not blank, up to a token that ends it."""
    return next((part for part in _END.split(turn) if part.strip()), "")


def _without_thoughts(text: str) -> str:
    kept: list[str] = []
    position, thinking = 0, False
    for mark in _THOUGHT.finditer(text):
        if mark["open"] and not thinking:
            kept.append(text[position : mark.start()])
        elif not mark["open"] and not thinking:  # the template opened the thoughts: all before is one
            kept.clear()
        position, thinking = mark.end(), bool(mark["open"])
    rest = text[position:]
    if thinking:  # cut off; or the model forgot to close them, and answers between tags all the same
        rest = rest if {"open", "close"} <= {mark.lastgroup for mark in _ANSWER.finditer(rest)} else ""
    return "".join(kept) + rest


def _between_answer_tags(text: str) -> str:
    """What stands behind the last opening tag, up to its end; before the closing tag where that stands alone."""
    marks = list(_ANSWER.finditer(text))
    opened = next((mark for mark in reversed(marks) if mark["open"]), None)
    start = opened.end() if opened else 0
    end = next((mark.start() for mark in marks if mark["close"] and mark.start() >= start), len(text))
    return text[start:end]
