"""Mends typos in the words that the rules read. Every other word stays as it is."""

import re
from functools import lru_cache

_PATTERNS = frozenset(
    """abnormalities abnormality amount angle annotate answer apply appear area assess benign bounding boxes
    calculate category cells choose classify circumference coordinates count counting degrees describe
    description detect determine diagnosis diameter dictate dictionary disease draw enumerate estimate evidence
    extent findings following format fraction fracture generate give grade identifier identify image impression
    individual interpret kind label large length lesion lesions letter list localize locate location malignant
    many mapping much mark measure measurement millimetres microscope microscopy modality narrative nodule
    normal nuclei number object options outline pathologies patient percent percentage image polyps position
    present provide quantify quantity radiograph radiology rate ratio report return scan segment select
    semicolon separated shown size slide smear stage structure summarize summarise tally teeth tell these
    thickness this tooth total tumor tumour ultrasound visible volume weeks what where whether which width write
    xray years""".split()  # noqa: SIM905 (a list of words, not of literals)
)
# Right as they are, though a letter away from a cue.
_RIGHT = frozenset(
    """account diagnostic identities localise localised anger ankle ankles being boat boats bones book brown calls
    camp cent chart cease centre choice chest chose circle clarify coast cost coats counts court county crate
    date dead deal deaths depth draws empty events ever every fetal final finding fine fish foot form formal
    formed from gates gaze gave given gift glad grand great green grey gray hard have here hole images item
    items lane larger largest last late later latter lead leant lean leave left level lever line lines link live
    liver lives lobe local lost loan made main make mail male manly mane mangy many mare marsh mask mean means
    meat menu mice might mine minutes mind money more most mount move much must mulch nuclear number numb
    objects over parent parents patent pattern peak piece place plane plaque plot please post press prevent
    president price print proud quality quantities ration rare rates real reason resort resent retina rise rice
    right role safe sale scar scale scales score scored shape share shore short show shows side sides silk
    simple site sites skin skip slice slices slid slip small smell snow solid some sound speak spear stain star
    start state states steps stricture table tale taken tall tally tell test text than thank that their them
    then there they thin thing think third those three thus tissue toll torn touch town tract type under upset
    value view vision visual wait walk wall want wards warm wear weather weak week well were west when while
    white who whole whom whose wide wine with within word words work worn wound wrist wrong wrote year""".split()  # noqa: SIM905 (a list of words, not of literals)
)
_ENDING = re.compile(r"(?:s|es|d|ed|al|ally|ic|ing|ion|ist|ly|ity|ive)$")
_WORD = re.compile(r"[A-Za-z]{4,}")


@lru_cache(maxsize=4096)
def normalised(text: str) -> str:
    """The text with misspelt cue words mended: one slip in a word (a letter changed, lost, doubled or swapped), two in
    words of nine letters and more."""
    # A capital inside a sentence is a name: "the Lauge-Hansen categories" are not large.
    return _WORD.sub(
        lambda match: match[0] if match.start() and match[0].istitle() else _corrected_word(match[0]), text
    )


@lru_cache(maxsize=16384)
def _corrected_word(word: str) -> str:
    folded = word.casefold()
    if {folded, f"{folded}s", folded.removesuffix("s")} & (_PATTERNS | _RIGHT) or _is_form_of_a_pattern(folded):
        return word
    allowed = 2 if len(folded) >= 9 else 1
    near = [
        (typos, pattern_of)
        for pattern_of in sorted(_PATTERNS)
        if len(pattern_of) >= 4
        and (pattern_of[0] == folded[0] or pattern_of[:2] == folded[1::-1])
        and abs(len(pattern_of) - len(folded)) <= allowed
        and (typos := _typos(folded, pattern_of, allowed)) <= allowed
    ]
    return min(near)[1] if near else word


def _is_form_of_a_pattern(word: str) -> bool:
    """Whether both are one stem with an ending: located, locates, located; diagnosed, diagnostic."""
    return any(
        len(stem) >= 5
        and any(pattern_of.startswith(stem) and len(pattern_of) - len(stem) <= 3 for pattern_of in _PATTERNS)
        for stem in (word, _ENDING.sub("", word))
    )


def _typos(first: str, second: str, limit: int) -> int:
    """Letters changed, lost, added or swapped with their neighbour, to get from one word to the other."""
    before, row = [0] * (len(second) + 1), list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        new = [i]
        for j, other in enumerate(second, 1):
            least = min(row[j] + 1, new[j - 1] + 1, row[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and first[i - 2] == other:
                least = min(least, before[j - 2] + 1)
            new.append(least)
        if min(new) > limit:
            return limit + 1
        before, row = row, new
    return row[-1]
