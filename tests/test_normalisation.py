"""Width and punctuation of all scripts in one form."""

# ruff: noqa: RUF001 (characters that look like ASCII are what is tested)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvl.normalisation import normalise
from medvl.router.route import normalise as as_the_router_reads


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Ｂ", "B", id="full-width-letter"),
        pytest.param("１２．５％", "12.5%", id="full-width-number"),
        pytest.param("B。", "B.", id="full-stop"),
        pytest.param("（A）", "(A)", id="parentheses"),
        pytest.param("【A】", "[A]", id="lenticular-brackets"),
        pytest.param("「A」", '"A"', id="corner-brackets"),
        pytest.param("\u201cA\u201d", '"A"', id="curly-quotes"),
        pytest.param("龋齿；牙髓病", "龋齿; 牙髓病", id="semicolon"),
        pytest.param("a؛ b، c", "a; b, c", id="arabic-punctuation"),
        pytest.param("a\u037e b", "a; b", id="greek-question-mark"),
        pytest.param("龋齿、牙髓病", "龋齿, 牙髓病", id="list-comma"),
        pytest.param("A、良性 B、恶性", "A: 良性 B: 恶性", id="option-comma"),
        pytest.param("A、B细胞 B、T细胞", "A: B细胞 B: T细胞", id="option-that-begins-with-a-letter"),
        pytest.param("A、C、D", "A, C, D", id="letters-in-a-list"),
        pytest.param("Which？A：Yes，B：No", "Which? A: Yes, B: No", id="wide-marks-have-their-space"),
        pytest.param("1，664", "1,664", id="but-not-in-a-number"),
        pytest.param("Class Ⅱ", "Class II", id="roman-numeral"),
        pytest.param("ﬁbrosis", "fibrosis", id="ligature"),
        pytest.param("𝐁", "B", id="bold"),
        pytest.param("\ufeffB\u200b", "B", id="no-width"),
        pytest.param("a\u00a0b\u3000c", "a b c", id="spaces"),
        pytest.param("e\u0301", "é", id="composed"),
        pytest.param("ｶﾞﾝ", "ガン", id="half-width-kana"),
        pytest.param("10²", "10²", id="a-power-is-no-digit"),
        pytest.param("12½", "12½", id="nor-a-fraction"),
        pytest.param("10①", "10①", id="nor-a-footnote"),
        pytest.param("´a", "´a", id="an-accent-alone"),
        pytest.param("Zwölf – Größe µ", "Zwölf – Größe μ", id="other-letters-stay"),
    ],
)
def test_one_form(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.text())
def test_twice_is_as_once_and_ascii_stays(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert normalise(ascii(text)) == ascii(text)


def test_the_router_reads_the_same_form() -> None:
    assert as_the_router_reads("诊断是什么？Ａ、良性　Ｂ、恶性") == "诊断是什么? A: 良性 B: 恶性"
