"""One pass over a text that finds the boxes in it, whatever its style. `medvl.box_text.parse_boxes` is the way in."""

import json
import re

import numpy as np

from medvl.box_brackets import Bracket
from medvl.box_collector import Collector
from medvl.box_words import (
    ANGLE_KEYS,
    BARE,
    BOX_KEYS,
    BOXES_INSIDE,
    COCO_KEYS,
    KEY_FOLLOWS,
    LABEL_KEYS,
    LABEL_LIST_KEYS,
    LIST_MARK_END,
    MASK_KEYS,
    NULL_FOLLOWS,
    OTHER_KEYS,
    OUTLINE_KEYS,
    PLACE_KEYS,
    STRING,
    STRUCTURAL_KEYS,
    TOKEN,
)

_DEPTH = 3  # strings in strings that are looked into
_NAME_KEYS = LABEL_KEYS | LABEL_LIST_KEYS


class Scanner(Collector):
    """One pass over the text; every character is looked at a bounded number of times."""

    def __init__(self, text: str, root: Bracket | None = None, depth: int = 0) -> None:
        """The text, and the bracket around it if it is a string in another text."""
        super().__init__(text, root or Bracket("", 0))
        self.depth = depth
        self.no_string_before = {'"': 0, "'": 0}

    def run(self) -> None:
        """Find the boxes."""
        position = 0
        while token := TOKEN.search(self.text, position):
            position = token.end()
            kind = token.lastgroup
            if kind == "quote":
                position = self.on_quote(token[0], token.start())
                continue
            if kind not in ("close", "quad_end"):
                self.stack[-1].empty = False
            if kind == "open":
                self.on_open(token[0], token.start())
            elif kind == "close":
                self.on_close(token.start())
            elif kind == "number":
                position = self.on_number(token[0], position)
            else:
                self.on_tag(str(kind), token[0], token.start())
        self.finish()

    def on_tag(self, kind: str, text: str, start: int) -> None:
        """Read a special token of a model family."""
        if kind == "ref":
            self.reference = re.sub(r"^<[^>]*>|<[^>]*>$", "", text).strip()
        elif kind == "nothing":
            self.explicit_empty = True
            self.nothing.append((self.root, None, self.reference))
        elif kind == "tag":
            self.stack[-1].pairs.clear()
        elif kind == "quad":
            self.on_open("q", start)
        elif self.stack[-1].kind == "q":
            self.close_points(self.stack.pop())

    def scope(self) -> Bracket:
        """The innermost bracket that can hold keys."""
        top = self.stack[-1]
        return top if top.kind in ("{", "") else top.parent or self.root

    def on_quote(self, quote: str, start: int) -> int:
        """Read a key or a value; returns where to go on. An unpaired quote is skipped, as are others on its line."""
        if start < self.no_string_before[quote]:
            return start + 1
        match = STRING[quote].match(self.text, start)
        if match is None:
            line_end = self.text.find("\n", start)
            self.no_string_before[quote] = len(self.text) if line_end < 0 else line_end
            return start + 1
        value = _unescape(match[1])
        self.stack[-1].empty = False
        if colon := KEY_FOLLOWS.match(self.text, match.end()):
            self.on_key(value, colon.end())
        else:
            self.on_string(value)
        return match.end()

    def on_key(self, key: str, end: int) -> None:
        """Read a key; `end` is where its value begins."""
        scope, folded = self.scope(), key.lower()
        scope.key = key
        scope.structural |= folded in STRUCTURAL_KEYS
        scope.mask |= folded in MASK_KEYS
        scope.coco |= folded in COCO_KEYS
        scope.blanks += scope.kind == "{" and NULL_FOLLOWS.match(self.text, end) is not None

    def on_string(self, value: str) -> None:
        """Read a value: a name, boxes given as a string, or other words."""
        top, scope = self.stack[-1], self.scope()
        key = scope.key.lower() if scope.key is not None else None
        if top.names_of is not None:
            top.names_of.words.append(value)
        elif top is scope and key in _NAME_KEYS:
            scope.label = value
        elif (top.kind == "[" or (top is scope and key in BOX_KEYS)) and (bare := BARE.fullmatch(value)):
            self.add_bare(bare, scope)
        elif self.depth < _DEPTH and BOXES_INSIDE.search(value) and self.scan_inside(value, scope):
            pass  # "[[1, 2, 3, 4]]" given as a string
        elif top.kind == "[":
            top.words.append(value)

    def scan_inside(self, value: str, scope: Bracket) -> bool:
        """Boxes in a string, under the key that holds it; False for prose with brackets."""
        inner = Scanner(value, Bracket("", 0, scope, scope.key), self.depth + 1)
        inner.reference = self.reference
        inner.run()
        if not inner.found and not inner.explicit_empty:
            return False
        self.found += inner.found
        self.nothing += inner.nothing
        self.notes += inner.notes
        self.explicit_empty |= inner.explicit_empty
        return True

    def on_open(self, kind: str, start: int) -> None:
        """Open a bracket, and tell by the key before it what its numbers are."""
        scope, top = self.scope(), self.stack[-1]
        bracket = Bracket(kind, start, scope, scope.key, first=len(self.found))
        key = scope.key.lower() if top.kind == "{" and scope.key is not None else None
        if key is None:
            bracket.outline_of = top.outline_of
        elif kind == "[":
            bracket.outline_of = scope if key in OUTLINE_KEYS else None
            bracket.names_of = scope if key in _NAME_KEYS else None
        bracket.ignored = top.ignored or key in OTHER_KEYS or (key in MASK_KEYS and kind == "[")
        self.stack.append(bracket)

    def on_close(self, end: int) -> None:
        """Close the innermost bracket, whatever its kind: models mix them up."""
        if len(self.stack) == 1:
            self.notes["unbalanced"] += 1
            return
        bracket = self.stack.pop()
        if bracket.ignored or (bracket.names_of is not None and not bracket.numbers):
            return
        if bracket.kind == "{":
            self.close_object(bracket)
        elif bracket.kind == "q":
            self.close_points(bracket)
        else:
            self.close_list(bracket, end)
        if bracket.empty and bracket.kind != "(" and not self.text[bracket.start + 1 : end].strip():
            self.explicit_empty = True
            self.close_nothing(bracket)

    def on_number(self, text: str, end: int) -> int:
        """Read a number; returns where to go on."""
        value = float(text) if len(text) <= 32 else np.inf
        top = self.stack[-1]
        if top.kind == "{" and (colon := KEY_FOLLOWS.match(self.text, end)):
            top.key = text  # {1: [[…]]}
            return colon.end()
        key = top.key.lower() if top.key is not None and top.kind in ("{", "") else None
        if top.names_of is not None and str(top.parent_key).lower() in LABEL_LIST_KEYS:
            top.names_of.words.append(text)
        elif key in LABEL_KEYS:
            top.label = text
        elif key in PLACE_KEYS:
            top.keyed[str(key)] = value
        elif key in ANGLE_KEYS:
            top.rotated |= value != 0
        elif top.kind not in ("", "{"):
            top.numbers.append(value)
        elif key is None or key in BOX_KEYS:  # numbers under other keys are attributes of their object
            self.loose += not self.is_list_mark(end - len(text), end)
        return end

    def is_list_mark(self, start: int, end: int) -> bool:
        """Whether a number is the `1.` or `1)` that begins a line of a list."""
        begins = start == 0 or self.text[start - 1] == "\n"
        marked = self.text[end - 1] == "." or self.text[end : end + 1] == ")"
        return begins and marked and LIST_MARK_END.match(self.text, end) is not None

    def finish(self) -> None:
        """Note what the text breaks off in, and read it as four bare numbers if it is that."""
        if len(self.stack) > 1:  # cut off: the last number may have lost digits, so its box is refused
            self.notes["truncated"] += 1
        self.notes["lone_corner"] += len(self.root.pairs) > 0
        self.close_keyed(Bracket("", 0, keyed=self.root.keyed, first=len(self.found)))
        if not self.found and (bare := BARE.fullmatch(self.text)):
            self.add_bare(bare, self.root)
        elif self.found or self.explicit_empty:
            self.notes["numbers_unread"] += self.loose


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        text = str(json.loads(f'"{text}"'))
    except json.JSONDecodeError:  # an escape JSON does not know, as in a Python repr
        return re.sub(r"\\(.)", r"\1", text)
    # Half an escaped pair ("\\ud83d") is no character, and no file could be written with it.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
