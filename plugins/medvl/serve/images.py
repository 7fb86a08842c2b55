"""The images of a request: data addresses, and only what was allowed beyond them.

LLaMA-Factory's own server opens any path below its media folder and fetches any address that is not private when it
looks; a name may point elsewhere a moment later. Here nothing is read or fetched unless its folder or host was named.
"""

import base64
import binascii
import io
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from medvl.images import FORMATS, shown
from medvl.serve.limits import MIB, Limits, RefusedError

FETCH_SECONDS = 20.0


def read_images(urls: Iterable[str], limits: Limits) -> Iterator[Image.Image]:
    """The decoded images of one conversation. None is decoded that would go beyond what all may have together.

    Raises:
        RefusedError: as `read_image`.
    """
    left = limits.pixels
    for url in urls:
        image = read_image(url, limits, left)
        left -= image.width * image.height
        yield image


def read_image(url: str, limits: Limits, left: int | None = None) -> Image.Image:
    """The decoded image behind an `image_url`, as the model is shown it.

    Args:
        url: `data:image/…;base64,…`; an http(s) address of an allowed host; a path in the allowed folder.
        limits: What is allowed.
        left: Pixels that the conversation's other images leave; None: all that it may have.

    Raises:
        RefusedError: not allowed (403), too large (413), or no whole image (400).
    """
    scheme, colon, rest = url.partition(":")
    if colon and scheme.lower() == "data":
        data = _data(rest)
    elif colon and scheme.lower() in ("http", "https"):
        data = _fetched(url, limits)
    else:
        data = _file(url, limits)
    return decode(data, limits, limits.pixels if left is None else left)


def decode(data: bytes, limits: Limits, left: int) -> Image.Image:
    """The whole image in these bytes; its size is looked at before its pixels are."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        pixels, size = image.width * image.height, f"{image.width} x {image.height}"
        if pixels > limits.image_pixels:
            raise RefusedError(413, f"an image has {size} pixels, the limit is {limits.image_pixels:,}; shrink it")
        if pixels > left:
            raise RefusedError(
                413,
                f"the images of a request may have {limits.pixels:,} pixels together; one of {size} is beyond that: "
                "send fewer or smaller ones",
            )
        image.load()
        return shown(image)
    except RefusedError:
        raise
    except Image.DecompressionBombError as error:
        raise RefusedError(413, f"an image is too large: {error}") from error
    except UnidentifiedImageError as error:  # its message has a memory address in it
        raise RefusedError(400, f"an image is of no known format; known: {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders raise a dozen types on broken images; whichever, the client must mend it
        raise RefusedError(400, f"an image cannot be decoded: {type(error).__name__}: {error}") from error


def _data(rest: str) -> bytes:
    header, comma, text = rest.partition(",")
    if not comma or not header.lower().endswith(";base64"):
        raise RefusedError(400, "an image's data address must read data:image/png;base64,… (or another format)")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(400, f"an image is not valid base64: {error}") from error


def _file(url: str, limits: Limits) -> bytes:
    if limits.folder is None:
        raise RefusedError(403, "images must be sent as data:image/…;base64,…; this server reads no files")
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path) if url.startswith("file:") else url
    try:
        folder = limits.folder.resolve()
        path = (folder / name).resolve()  # links resolved: one that leads out of the folder is outside
        inside = path.is_relative_to(folder) and path.is_file()
    except (OSError, ValueError):
        inside = False
    if not inside:  # the same words whether a file outside exists or not
        raise RefusedError(403, "there is no such image in the folder that this server may read")
    return _limited(path, limits)


def _limited(path: Path, limits: Limits) -> bytes:
    with path.open("rb") as file:
        data = file.read(limits.body_bytes + 1)
    if len(data) > limits.body_bytes:
        raise RefusedError(413, f"an image's file is larger than {limits.body_bytes / MIB:.0f} MiB")
    return data


def _fetched(url: str, limits: Limits) -> bytes:
    import httpx

    try:
        address = httpx.URL(url)  # read by what fetches it: two readers may see two hosts in one address
    except httpx.InvalidURL as error:
        raise RefusedError(400, f"an image's address cannot be read: {error}") from error
    host = address.host if address.port is None else f"{address.host}:{address.port}"
    if host not in limits.hosts:
        raise RefusedError(403, f"this server fetches nothing from {host}; send images as data:image/…;base64,…")
    data = bytearray()
    try:
        with httpx.stream("GET", address, follow_redirects=False, timeout=FETCH_SECONDS) as answer:
            if answer.status_code != httpx.codes.OK:
                raise RefusedError(400, f"{host} answered {answer.status_code} when asked for an image")
            for chunk in answer.iter_bytes():
                data += chunk
                if len(data) > limits.body_bytes:
                    raise RefusedError(413, f"an image at {host} is larger than {limits.body_bytes / MIB:.0f} MiB")
    except httpx.HTTPError as error:
        raise RefusedError(400, f"an image could not be fetched from {host}: {type(error).__name__}") from error
    return bytes(data)
