"""What the box parser (`medvl.box_scanner`) keeps of an open bracket and of a box, and how a box gets its name."""

from dataclasses import dataclass, field

from medvl.box_words import STRUCTURAL_KEYS


@dataclass(eq=False, slots=True)
class Bracket:
    """An open bracket, the text outside of all (`kind` ""), or the inside of a `<quad>` (`kind` "q").

    Attributes:
        parent: The nearest bracket that can hold keys; `parent_key` its key when this one was opened.
        first: How many boxes had been found when it was opened.
        numbers: Its own; of an object the points of its outline, x and y by turns. `outline_of` is the object whose
            outline a list is part of.
        pairs: Points in it, x and y by turns; `square` whether one of them stood in square brackets.
        words: Its own; of an object the names that it lists for its boxes. `names_of` is the object whose names a list
            holds.
    """

    kind: str
    start: int
    parent: "Bracket | None" = None
    parent_key: str | None = None
    first: int = 0
    key: str | None = None
    label: str | None = None
    numbers: list[float] = field(default_factory=list)
    keyed: dict[str, float] = field(default_factory=dict)
    pairs: list[float] = field(default_factory=list)
    square: bool = False
    words: list[str] = field(default_factory=list)
    outline_of: "Bracket | None" = None
    names_of: "Bracket | None" = None
    ignored: bool = False
    mask: bool = False
    coco: bool = False
    rotated: bool = False
    structural: bool = False
    blanks: int = 0
    groups: int = 0
    empty: bool = True

    def name(self, key: str | None) -> str | None:
        """The label of a box under `key`: an explicit label, else the key unless it is a structural word."""
        scope: Bracket | None = self
        for _ in range(8):  # nobody nests labels deeper; bounded so that hostile nesting stays linear
            if scope is None:
                return None
            if scope.label is not None:
                return scope.label
            if key is not None and key.lower() not in STRUCTURAL_KEYS:
                return key
            key, scope = scope.parent_key, scope.parent
        return None

    def name_of_nothing(self, key: str | None) -> str | None:
        """The name that an empty list under `key` says there is nothing of; None if it names none."""
        attribute = key is not None and self.structural and key.lower() not in STRUCTURAL_KEYS
        return None if attribute else self.name(key)


@dataclass(eq=False, slots=True)
class Found:
    """A box: its numbers, where its name may stand, and whether it is `[y, x, y, x]` in 0-1000 by its key."""

    numbers: list[float]
    scope: Bracket
    key: str | None
    reference: str | None
    y_first: bool
    word: str | None = None

    @property
    def label(self) -> str | None:
        """Its name: beside its own numbers, around them, or in the reference before it."""
        return self.word or self.scope.name(self.key) or self.reference
