"""Placeholder while the real hook is being written."""


def autoload() -> None:
    """Do nothing."""
