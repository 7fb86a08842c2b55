"""What a model's text presents as its answer, and whether it refuses to give one.

Rules were settled on 3,918 real outputs of two models (long prose with fenced and boxed conclusions; bare letters).
"""

import re

from medvl.normalisation import UNSPACED

_CONCLUDES = r"""\bfinal\s(?:answer|output)\b(?:\sshould\sbe|\sis)?
            | \b(?:answers?|findings|option|choice|classification|category)\s(?:is|are)\b
            | \bI\s(?:choose|select|pick)\b
            | \bmost\s(?:likely|appropriate|accurate|plausible|probable|suitable)\b[^.\n*]{0,80}?\b(?:is|be)\b
            | \banswer\s*+(?:\**+\s*+)[:=]
            | \b(?:antwort|r(?:espuesta|esposta|isposta|[eé]ponse))\b[^:\n]{0,20}:"""
# In other alphabets; looked for only in texts that have such letters.
_CONCLUDES_ELSEWHERE = r"""(?:答案|诊断|診斷|结论|結論)(?:应该?|應該?)?(?:是|为|為|选|選|:)
            | [选選](?:择|擇|项|項)?(?=[\s:*(]{0,4}[A-Z](?![A-Z]))
            | (?:答え|正解|回答|解答|정답|답)\s?(?:は|은|:)
            | \b(?:ответ|відповідь|الإجابة|الجواب|उत्तर)\b[^:\n]{0,20}:"""


def _conclusion(concludes: str) -> re.Pattern[str]:
    return re.compile(
        rf"""(?: \\boxed\{{(?:\\text\{{)?(?P<boxed>[^{{}}\n]{{1,1000}})\}}
            | (?: {concludes} )[*:\s]*(?P<stated>[^\n]{{1,1000}}) )""",
        re.VERBOSE | re.IGNORECASE,
    )


_CONCLUSION, _CONCLUSION_ELSEWHERE = _conclusion(_CONCLUDES), _conclusion(f"{_CONCLUDES}|{_CONCLUDES_ELSEWHERE}")
_OTHER_ALPHABET = re.compile(rf"[\u0400-\u0dff{UNSPACED}]")
_REFUSAL = re.compile(r"\b(?:cannot|can't|can not|unable to|not possible to|i'm sorry)\b"
                      r"|无法|無法|抱歉|对不起|對不起|できません", re.IGNORECASE)  # fmt: skip
_CONCLUSIONS = 20  # a model caught in a loop concludes thousands of times; the last ones are read


def conclusions(text: str) -> list[str]:
    """What the text presents as its answer (`\\boxed{…}`, "Final answer: …", "the answer is …"), the last one first."""
    elsewhere = not text.isascii() and _OTHER_ALPHABET.search(text)
    pattern = _CONCLUSION_ELSEWHERE if elsewhere else _CONCLUSION
    found, position = [], 0
    while match := pattern.search(text, position):
        position = match.start(match.lastgroup or 0)  # one may hold another: "Final answer: it is \boxed{C}"
        found.append(match[match.lastgroup or 0])
    return found[: -_CONCLUSIONS - 1 : -1]


def is_refusal(text: str) -> bool:
    """Whether the text says that the model cannot answer."""
    return _REFUSAL.search(text.replace("\u2019", "'")) is not None
