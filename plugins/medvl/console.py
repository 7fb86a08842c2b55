"""What the terminal takes: text in any language, whatever its encoding."""

import io
import sys


def accept_all_text() -> None:
    """Have standard output and error escape what their encoding lacks, instead of ending the program with an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
