"""Data sets that people start with: what their columns mean, by their own pages (`--preset NAME`)."""

from collections.abc import Mapping
from dataclasses import dataclass

from medvl.sources.tables.settings import Settings


@dataclass(frozen=True)
class Preset:
    """What is known of a data set.

    Attributes:
        settings: What the command line need not say.
        licence: Under which terms it may be used, in a sentence.
    """

    settings: Settings
    licence: str


PRESETS: Mapping[str, Preset] = {}
