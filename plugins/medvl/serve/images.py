"""The images of a request: data addresses, and only what was allowed beyond them.

LLaMA-Factory's own server opens any path below its media folder and fetches any address that is not private when it
looks; a name may point elsewhere a moment later. Here nothing is read or fetched unless its folder or host was named.
"""

import asyncio
import base64
import binascii
import io
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from medvl.images import FORMATS, shown
from medvl.serve.limits import MIB, Limits, RefusedError
from medvl.serve.memory import Hold, unlimited

if TYPE_CHECKING:
    import httpx

WHITESPACE = b" \t\n\r\v\f"


@dataclass(frozen=True)
class EncodedImage:
    """An image as it was sent: of a known format, of a size that is allowed, and not decoded yet.

    Attributes:
        data: Its file.
        pixels: Width times height.
    """

    data: bytes
    pixels: int


def read_images(urls: Sequence[str], limits: Limits, hold: Hold = unlimited) -> list[EncodedImage]:
    """The images of one conversation, not decoded; the sizes in their headers are within the limits.

    Args:
        urls: `data:image/…;base64,…`; http(s) addresses of allowed hosts; paths in the allowed folder.
        limits: What is allowed.
        hold: Told of the bytes of every image that did not come in the request itself.

    Raises:
        RefusedError: not allowed (403), too large (413), or no image (400).
    """
    fetched = _fetched([url for url in dict.fromkeys(urls) if _scheme(url) in ("http", "https")], limits, hold)
    left = limits.pixels
    images = []
    for url in urls:
        image = _checked(fetched[url] if url in fetched else _local(url, limits, hold), limits, left)
        left -= image.pixels
        images.append(image)
    return images


def decode(encoded: EncodedImage) -> Image.Image:
    """The whole image, as the model is shown it.

    Raises:
        RefusedError: it is broken (400).
        MemoryError: there is no memory for its pixels.
    """
    try:
        image = _opened(encoded.data)
        image.load()
        return shown(image)
    except (RefusedError, MemoryError):
        raise
    except Exception as error:  # decoders raise a dozen types on broken images; whichever, the client must mend it
        raise _broken(error) from error


def _checked(data: bytes, limits: Limits, left: int) -> EncodedImage:
    """The image in these bytes; only its header is read."""
    with _opened(data) as image:
        pixels, size = image.width * image.height, f"{image.width} x {image.height}"
    if pixels > limits.image_pixels:
        raise RefusedError(413, f"an image has {size} pixels, the limit is {limits.image_pixels:,}; shrink it")
    if pixels > left:
        raise RefusedError(
            413,
            f"the images of a request may have {limits.pixels:,} pixels together; one of {size} is beyond that: "
            "send fewer or smaller ones",
        )
    return EncodedImage(data, pixels)


def _opened(data: bytes) -> ImageFile:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise RefusedError(413, f"an image is too large: {error}") from error
    except UnidentifiedImageError as error:  # its message has a memory address in it
        raise RefusedError(400, f"an image is of no known format; known: {', '.join(FORMATS)}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise _broken(error) from error


def _broken(error: Exception) -> RefusedError:
    return RefusedError(400, f"an image cannot be decoded: {type(error).__name__}: {error}")


def _scheme(url: str) -> str:
    scheme, colon, _ = url.partition(":")
    return scheme.lower() if colon else ""


def _local(url: str, limits: Limits, hold: Hold) -> bytes:
    if _scheme(url) == "data":
        return _data(url.partition(":")[2])
    return _file(url, limits, hold)


def _data(rest: str) -> bytes:
    header, comma, text = rest.partition(",")
    if not comma or not header.lower().endswith(";base64"):
        raise RefusedError(400, "an image's data address must read data:image/png;base64,… (or another format)")
    try:
        return base64.b64decode(text.encode("ascii").translate(None, WHITESPACE), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(400, f"an image is not valid base64: {error}") from error


def _file(url: str, limits: Limits, hold: Hold) -> bytes:
    if limits.folder is None:
        raise RefusedError(403, "images must be sent as data:image/…;base64,…; this server reads no files")
    try:
        name = urllib.parse.unquote(urllib.parse.urlsplit(url).path) if url.startswith("file:") else url
        folder = limits.folder.resolve()
        path = (folder / name).resolve()  # links resolved: one that leads out of the folder is outside
        if path.is_relative_to(folder) and path.is_file():
            return _limited(path, limits, hold)
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links that lead in a circle
        pass
    # The same words whether a file outside exists or not.
    raise RefusedError(403, "there is no such image in the folder that this server may read")


def _limited(path: Path, limits: Limits, hold: Hold) -> bytes:
    with path.open("rb") as file:
        data = file.read(limits.body_bytes + 1)
    if len(data) > limits.body_bytes:
        raise RefusedError(413, f"an image's file is larger than {limits.body_bytes / MIB:.0f} MiB")
    hold(len(data))
    return data


def _fetched(urls: Sequence[str], limits: Limits, hold: Hold) -> dict[str, bytes]:
    """What lies at these addresses, fetched at once within the time that one request has for all of them."""
    if not urls:
        return {}
    return asyncio.run(_fetch_all(urls, limits, hold))


async def _fetch_all(urls: Sequence[str], limits: Limits, hold: Hold) -> dict[str, bytes]:
    import httpx

    addresses = [_allowed(url, limits) for url in urls]
    # The deadline is for everything: a host that drips bytes is never silent for long, in headers as in bodies.
    try:
        async with (
            asyncio.timeout(limits.fetch_seconds),
            httpx.AsyncClient(follow_redirects=False, timeout=limits.fetch_seconds) as client,
        ):
            fetches = [_fetch(client, address, limits, hold) for address in addresses]
            return dict(zip(urls, await asyncio.gather(*fetches), strict=True))
    except TimeoutError:
        hosts = ", ".join(sorted({_host(address) for address in addresses}))
        raise RefusedError(400, f"the images did not come from {hosts} in {limits.fetch_seconds:g} seconds") from None


async def _fetch(client: "httpx.AsyncClient", address: "httpx.URL", limits: Limits, hold: Hold) -> bytes:
    import httpx

    host = _host(address)
    data = bytearray()
    try:
        # As it is sent, not unpacked: a piece of a packed body may be a thousand times larger than its bytes.
        async with client.stream("GET", address, headers={"Accept-Encoding": "identity"}) as answer:
            if answer.status_code != httpx.codes.OK:
                raise RefusedError(400, f"{host} answered {answer.status_code} when asked for an image")
            async for chunk in answer.aiter_raw():
                data += chunk
                if len(data) > limits.body_bytes:
                    raise RefusedError(413, f"an image at {host} is larger than {limits.body_bytes / MIB:.0f} MiB")
                hold(len(chunk))
    except httpx.HTTPError as error:
        raise RefusedError(400, f"an image could not be fetched from {host}: {type(error).__name__}") from error
    return bytes(data)


def _allowed(url: str, limits: Limits) -> "httpx.URL":
    import httpx

    try:
        address = httpx.URL(url)  # read by what fetches it: two readers may see two hosts in one address
    except httpx.InvalidURL as error:
        raise RefusedError(400, f"an image's address cannot be read: {error}") from error
    if _host(address) not in limits.hosts:
        host = _host(address)[:100]
        raise RefusedError(403, f"this server fetches nothing from {host}; send images as data:image/…;base64,…")
    return address


def _host(address: "httpx.URL") -> str:
    return address.host if address.port is None else f"{address.host}:{address.port}"
