"""Images: each kind is decoded for real, shown to the model as a viewer would show it, and looked at only once."""

import io
import os
import shutil
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin, features

import medvl.images
from medvl.images import window
from preprocess import decoding, images, page
from preprocess.decoding import examine
from preprocess.images import ImageCache, look_at
from preprocess.validate_records import _look


def noise(*shape: int, dtype: type = np.uint8, high: int = 255) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape, dtype=dtype)


def encoded(image: Image.Image, layout: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, layout, **options)
    return buffer.getvalue()


RGB = Image.fromarray(noise(80, 100, 3))
PNG, JPEG = encoded(RGB, "PNG"), encoded(RGB, "JPEG")


def look(tmp_path: Path, data: bytes, name: str = "x.bin") -> decoding.ImageInfo:
    (tmp_path / name).write_bytes(data)
    return examine(str(tmp_path / name), str(tmp_path / "copies" / f"{name}.png"), data)


def test_whole_images_are_used_as_they_are(tmp_path: Path) -> None:
    kinds: dict[str, bytes] = {
        "png": PNG, "jpeg": JPEG, "progressive": encoded(RGB, "JPEG", progressive=True), "bmp": encoded(RGB, "BMP"),
        "grey": encoded(RGB.convert("L"), "PNG"), "bilevel": encoded(RGB.convert("1"), "PNG"),
        "palette": encoded(RGB.quantize(16), "PNG"), "tiff": encoded(RGB, "TIFF"), "gif": encoded(RGB, "GIF"),
        "interlaced jpeg": encoded(RGB.convert("L"), "JPEG"), "opaque alpha": encoded(RGB.convert("RGBA"), "PNG"),
    }  # fmt: skip
    if features.check("webp"):
        kinds["webp"] = encoded(RGB, "WEBP")
    for name, data in kinds.items():
        found_image = look(tmp_path, data, name)
        assert (found_image.path, found_image.size, found_image.problem) == (str(tmp_path / name), (100, 80), None), (
            name
        )
        assert not found_image.notes, name
    assert not (tmp_path / "copies").exists()


def corrupt(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(JPEG[:-600], "IMAGE_UNREADABLE", id="jpeg cut in the middle, which verify() passes"),
        pytest.param(JPEG[:-2], "IMAGE_UNREADABLE", id="jpeg without its end marker"),
        pytest.param(PNG[:-600], "IMAGE_UNREADABLE", id="png cut"),
        pytest.param(PNG[:-12], "IMAGE_UNREADABLE", id="png without its end chunk"),
        pytest.param(corrupt(PNG, len(PNG) // 2), "IMAGE_UNREADABLE", id="png with a wrong checksum"),
        pytest.param(encoded(RGB, "BMP")[:-600], "IMAGE_UNREADABLE", id="bmp cut"),
        pytest.param(encoded(RGB, "TIFF")[:9000], "IMAGE_UNREADABLE", id="tiff cut"),
        pytest.param(b"", "IMAGE_UNREADABLE", id="empty"),
        pytest.param(b"<html>404</html>", "IMAGE_UNREADABLE", id="an error page"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "IMAGE_UNREADABLE", id="postscript"),
    ],
)
def test_broken_images_are_found(tmp_path: Path, data: bytes, code: str) -> None:
    found_image = look(tmp_path, data)
    assert (found_image.size, found_image.problem) == (None, code)
    assert "x.bin" in found_image.detail
    assert " at 0x" not in found_image.detail  # the report must not differ from run to run


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG, its checksum right whatever it holds."""
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def png(data: bytes, *, colour: int = 2, interlaced: int = 0, before: bytes = b"", cut: int = 10**6) -> bytes:
    """A PNG of 8 x 6 pixels and 8 bits with these bytes as its compressed pixels, in chunks of `cut`."""
    header = struct.pack(">IIBBBBB", 8, 6, 8, colour, 0, 0, interlaced)
    pixels = [chunk(b"IDAT", data[start : start + cut]) for start in range(0, max(len(data), 1), cut)]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + b"".join(pixels) + chunk(b"IEND", b"")


ROW = b"\1" + bytes(range(24))  # its filter, and eight pixels of three colours
PIXELS = zlib.compress(6 * ROW)
ADAM7 = b"".join(rows * (b"\0" + columns * b"abc") for columns, rows in ((1, 1), (1, 1), (2, 1), (2, 2), (4, 1),
                                                                         (4, 3), (8, 3)))  # fmt: skip
with_dictionary = zlib.compressobj(zdict=bytes(30))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(png(zlib.compress(4 * ROW)), "truncated: 100 of 150 bytes", id="rows missing, which Pillow takes"),
        pytest.param(png(2 * zlib.compress(3 * ROW)), "truncated: 75 of", id="two streams, which Pillow takes"),
        pytest.param(png(zlib.compress(6 * ROW[:-1])), "truncated: 144 of", id="short rows"),
        pytest.param(png(PIXELS[:-6]), "truncated", id="stream cut"),
        pytest.param(png(b""), "truncated: 0 of", id="an empty chunk"),
        pytest.param(png(PIXELS[:-4] + b"abcd"), "no pixels", id="the stream's own checksum"),
        pytest.param(png(4 * b"garbage!"), "no pixels", id="garbage"),
        pytest.param(png(PIXELS[2:]), "no pixels", id="no zlib header"),
        pytest.param(png(with_dictionary.compress(6 * ROW) + with_dictionary.flush()), "no pixels", id="a dictionary"),
        pytest.param(png(zlib.compress(b"\7" + ROW[1:] + 5 * ROW)), "unknown filter", id="first row's filter"),
        pytest.param(png(zlib.compress(5 * ROW + b"\5" + ROW[1:])), "unknown filter", id="last row's filter"),
        pytest.param(png(zlib.compress(ADAM7[:-25]), interlaced=1), "truncated", id="interlaced, its last row missing"),
        pytest.param(png(zlib.compress(b"\7" + ADAM7[1:]), interlaced=1), "unknown filter", id="interlaced, a filter"),
        pytest.param(png(zlib.compress(6 * ROW[:9]), colour=3), "palette", id="no palette"),
        pytest.param(png(PIXELS).replace(b"IDAT", b"IDAX"), "", id="no pixels at all"),
    ],
)
def test_a_png_whose_checksums_are_right_and_pixels_are_not(tmp_path: Path, data: bytes, reason: str) -> None:
    found_image = look(tmp_path, data)
    assert (found_image.size, found_image.problem) == (None, "IMAGE_UNREADABLE")
    assert reason in found_image.detail
    with pytest.raises(ValueError, match=r"x\.bin"):
        medvl.images.decode(tmp_path / "x.bin")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(PIXELS), id="plain"),
        pytest.param(png(PIXELS, cut=3), id="many chunks"),
        pytest.param(png(PIXELS[:-4]), id="all pixels, without the stream's checksum"),
        pytest.param(png(zlib.compress(9 * ROW)), id="rows that nobody sees"),
        pytest.param(png(PIXELS + b"more"), id="bytes behind the stream"),
        pytest.param(png(zlib.compress(ADAM7), interlaced=1), id="interlaced"),
        pytest.param(png(zlib.compress(6 * ROW[:9]), colour=3, before=chunk(b"PLTE", bytes(768))), id="palette"),
        pytest.param(png(zlib.compress(6 * (ROW + bytes(8))), colour=6), id="transparent"),
        *(pytest.param(encoded(Image.new(mode, (width, height)), "PNG"), id=f"{mode} {width} x {height}")
          for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") for width, height in ((1, 1), (9, 7))),
    ],
)  # fmt: skip
def test_a_png_that_llama_factory_shows_whole_is_kept(tmp_path: Path, data: bytes) -> None:
    found_image = look(tmp_path, data)
    assert (found_image.size, found_image.problem) == (Image.open(io.BytesIO(data)).size, None)
    Image.open(io.BytesIO(data)).convert("RGB")


@pytest.mark.parametrize("data", [PNG, JPEG, encoded(RGB, "GIF")], ids=["png", "jpeg", "gif"])
def test_every_cut_is_found_or_harmless(tmp_path: Path, data: bytes) -> None:
    for length in range(0, len(data), max(1, len(data) // 60)):
        if look(tmp_path, data[:length]).problem is None:
            Image.open(io.BytesIO(data[:length])).convert("RGB")  # what LLaMA-Factory does must then work too


def inspect(folder: Path, *names: str, hashes: bool = False) -> dict[str, decoding.ImageInfo]:
    """What a run finds at `folder`/tree that keeps its cache and copies in `folder`."""
    cache = ImageCache(folder)
    seen = {
        name: look_at([f"{folder}/tree/{name}"], lambda path: f"{folder}/copies/{Path(path).name}.png", cache.seen,
                      hashes=hashes)
        for name in names
    }  # fmt: skip
    cache.add(seen.values())
    cache.save()
    return {name: found.image for name, found in seen.items()}


def test_a_missing_image_and_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "tree/folder.png").mkdir(parents=True)
    found = inspect(tmp_path, "gone.png", "folder.png", "folder.png/x.png")
    assert {found_image.problem for found_image in found.values()} == {"IMAGE_MISSING"}


def test_a_name_that_no_disk_can_hold_is_a_finding_like_others(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (found_image,) = inspect(tmp_path, "x" * 300).values()
    assert found_image.problem == "IMAGE_UNREADABLE"
    assert found_image.detail.endswith("File name too long")


@pytest.mark.parametrize("make", [
    pytest.param(os.mkfifo, id="pipe"),
    pytest.param(lambda path: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)), id="socket"),
    pytest.param(lambda path: path.symlink_to("/dev/zero"), id="device"),
    pytest.param(lambda path: path.symlink_to(path), id="link to itself"),
])  # fmt: skip
def test_what_is_no_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]
) -> None:
    (tmp_path / "tree").mkdir()
    monkeypatch.chdir(tmp_path)  # the address of a socket has room for a hundred characters
    make(tmp_path / "tree/x.png")
    (found_image,) = inspect(tmp_path, "x.png").values()
    assert (found_image.problem, found_image.size) == ("IMAGE_UNREADABLE", None)
    assert page.thumbnail(tmp_path / "tree/x.png", 10) is None
    with pytest.raises((OSError, ValueError)):
        medvl.images.decode(tmp_path / "tree/x.png")


def test_the_first_place_that_has_a_image_counts(tmp_path: Path) -> None:
    for name in ("b.png", "c.png"):
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "a.png").mkdir()
    places = [str(tmp_path / name) for name in ("gone.png", "a.png", "b.png", "c.png")]
    assert look_at(places, str, {}).image.path == str(tmp_path / "b.png")
    assert look_at(places[:2], str, {}).image.path == str(tmp_path / "gone.png")


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    header = encoded(Image.new("1", (20_000, 10_000)), "PNG")
    found_image = look(tmp_path, header)
    assert (found_image.problem, found_image.size) == ("IMAGE_TOO_LARGE", None)
    assert 2 * (Image.MAX_IMAGE_PIXELS or 0) == decoding.MAX_PIXELS  # more would stop LLaMA-Factory itself


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("layout", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied_to_a_copy(tmp_path: Path, layout: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found_image = look(tmp_path, encoded(RGB, layout, exif=exif))
    assert found_image.size == ((80, 100) if orientation >= 5 else (100, 80))
    assert [code for code, _ in found_image.notes] == (["EXIF_ROTATED"] if orientation > 1 else [])
    with Image.open(tmp_path / "x.bin") as original, Image.open(found_image.path) as shown:
        np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(original)), np.asarray(shown))
        assert orientation == 1 or not shown.getexif()


ODD = [("H", 9), ("H", 0), ("H", 65535), ("h", -1), ("B", 6), ("2s", b"6\0"), ("4s", b"top\0"), ("H", None)]
TIFF_TYPES = {"B": 1, "2s": 2, "4s": 2, "H": 3, "h": 8}


@pytest.mark.parametrize("layout", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("kind", "value"), ODD)
def test_an_exif_orientation_that_means_nothing_is_none(
    tmp_path: Path, layout: str, kind: str, value: int | bytes | None
) -> None:
    content = struct.pack(f"<{kind}", value).ljust(4, b"\0") if value is not None else b""
    count = len(content) if kind == "4s" else 2 if kind == "2s" else 1
    entry = struct.pack("<HHHI", 1, 0x0112, TIFF_TYPES[kind], count) + content + bytes(4)
    exif = b"Exif\0\0" + (b"II*\0\x08\0\0\0" + entry if content else b"nothing of the kind")
    found_image = look(tmp_path, encoded(RGB, layout, exif=exif))
    assert (found_image.path, found_image.size, found_image.notes) == (str(tmp_path / "x.bin"), (100, 80), ())
    assert medvl.images.shown_size(Image.open(found_image.path)) == (100, 80)
    assert _look(found_image.path) == ((100, 80), None)


def with_chunk(data: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk before its last."""
    return data[:-12] + chunk(kind, content) + data[-12:]


def test_a_png_may_name_its_orientation_behind_its_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found_image = look(tmp_path, with_chunk(PNG, b"eXIf", exif.tobytes()[6:]))
    assert (found_image.size, [code for code, _ in found_image.notes]) == ((80, 100), ["EXIF_ROTATED"])


@pytest.mark.parametrize("kind", [b"tEXt", b"prVt"])
def test_bytes_of_a_png_that_look_like_exif_by_chance(tmp_path: Path, kind: bytes) -> None:
    found_image = look(tmp_path, with_chunk(PNG, kind, b"x\0 eXIf"))
    assert (found_image.size, found_image.problem, found_image.notes) == ((100, 80), None, ())


def test_a_png_with_xmp(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta xmlns:x="adobe:ns:meta/" />')
    found_image = look(tmp_path, encoded(RGB, "PNG", pnginfo=text))
    assert (found_image.size, found_image.problem, found_image.notes) == ((100, 80), None, ())


def test_16_bits_are_windowed_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(1000, 5000, 8000).reshape(80, 100).astype(np.uint16)
    values[0, 0] = 65535  # one burnt-in marker must not make all else black
    data = encoded(Image.fromarray(values), "PNG")
    found_image = look(tmp_path, data)
    assert [code for code, _ in found_image.notes] == ["DEPTH_WINDOWED"]
    shown = np.asarray(Image.open(found_image.path))
    assert (shown.dtype, shown.shape) == (np.uint8, (80, 100))
    assert (shown.min(), shown.max()) == (0, 255)
    assert 120 < np.median(shown) < 135
    naive = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert naive.min() == 255 or naive.max() - naive.min() < 50  # what the model would see without the copy


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([[7, 7], [7, 7]], [[0, 0], [0, 0]], id="one value"),
        pytest.param([[0, 10], [20, 40]], [[0, 62], [127, 255]], id="linear"),
        pytest.param([[float("nan"), 0], [1, 1]], [[0, 0], [255, 255]], id="nan is the dark end"),
    ],
)
def test_window(values: list[list[float]], expected: list[list[int]]) -> None:
    assert np.abs(np.asarray(window(np.array(values)), dtype=int) - expected).max() <= 3


def transparent(mode: str) -> Image.Image:
    image = Image.new("RGBA", (4, 4), (200, 100, 50, 255))
    image.putpixel((0, 0), (255, 255, 255, 0))  # white that nobody sees
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_hidden_colours_stay_hidden(tmp_path: Path, mode: str) -> None:
    image = transparent(mode) if mode != "P" else transparent("RGBA").quantize(4)
    found_image = look(tmp_path, encoded(image, "PNG"))
    assert [code for code, _ in found_image.notes] == ["ALPHA_FLATTENED"]
    shown = Image.open(found_image.path).convert("RGB")
    assert shown.getpixel((0, 0)) == (0, 0, 0)
    assert shown.getpixel((3, 3)) != (0, 0, 0)


def test_cmyk_and_several_frames_are_used_and_reported(tmp_path: Path) -> None:
    cmyk = look(tmp_path, encoded(RGB.convert("CMYK"), "JPEG"), "cmyk")
    frames = encoded(RGB, "GIF", save_all=True, append_images=[RGB.rotate(90), RGB.rotate(180)])
    stack = encoded(RGB, "TIFF", save_all=True, append_images=[RGB.rotate(90)])
    assert (cmyk.size, [code for code, _ in cmyk.notes]) == ((100, 80), ["IMAGE_CMYK"])
    for name, data in (("gif", frames), ("tiff", stack)):
        found_image = look(tmp_path, data, name)
        assert (found_image.path, [code for code, _ in found_image.notes]) == (str(tmp_path / name), ["IMAGE_FRAMES"])


def test_copies_hold_no_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "Jane Doe, born 1970"
    found_image = look(tmp_path, encoded(RGB, "JPEG", exif=exif, comment=b"Jane Doe"))
    assert found_image.path.endswith("x.bin.png")
    assert b"Jane" not in Path(found_image.path).read_bytes()


class TestCache:
    @pytest.fixture
    def names(self, tmp_path: Path) -> list[str]:
        (tmp_path / "tree").mkdir()
        for i in range(3):
            (tmp_path / f"tree/{i}.png").write_bytes(encoded(Image.fromarray(noise(9, 9 + i)), "PNG"))
        exif = Image.Exif()
        exif[0x0112] = 6
        (tmp_path / "tree/turned.jpg").write_bytes(encoded(RGB, "JPEG", exif=exif))
        return ["0.png", "1.png", "2.png", "turned.jpg"]

    @pytest.fixture
    def looked_at(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        seen: list[str] = []
        original: Callable[..., decoding.ImageInfo] = images.examine

        def recording(path: str, copy: str, data: bytes, max_side: int | None) -> decoding.ImageInfo:
            seen.append(Path(path).name)
            return original(path, copy, data, max_side)

        monkeypatch.setattr(images, "examine", recording)
        return seen

    def test_an_unchanged_image_is_not_opened_again(
        self, names: list[str], looked_at: list[str], tmp_path: Path
    ) -> None:
        first = inspect(tmp_path, *names)
        looked_at.clear()
        assert inspect(tmp_path, *names) == first
        assert looked_at == []

    @pytest.mark.parametrize("hashes", [False, True], ids=["size and time", "content"])
    def test_a_changed_image_is(self, names: list[str], looked_at: list[str], tmp_path: Path, hashes: bool) -> None:
        inspect(tmp_path, *names, hashes=hashes)
        looked_at.clear()
        (tmp_path / "tree/1.png").write_bytes(PNG)
        assert inspect(tmp_path, *names, hashes=hashes)["1.png"].size == (100, 80)
        assert looked_at == ["1.png"]

    def test_by_content_a_touched_image_is_unchanged(
        self, names: list[str], looked_at: list[str], tmp_path: Path
    ) -> None:
        inspect(tmp_path, *names, hashes=True)
        looked_at.clear()
        (tmp_path / "tree/1.png").touch()
        inspect(tmp_path, *names, hashes=True)
        assert looked_at == []

    def test_a_copy_that_was_deleted_is_made_again(
        self, names: list[str], looked_at: list[str], tmp_path: Path
    ) -> None:
        inspect(tmp_path, *names)
        looked_at.clear()
        (tmp_path / "copies/turned.jpg.png").unlink()
        inspect(tmp_path, *names)
        assert looked_at == ["turned.jpg"]

    def test_a_duplicate_of_a_folder_makes_copies_of_its_own(self, names: list[str], tmp_path: Path) -> None:
        inspect(tmp_path, *names)
        shutil.copytree(tmp_path / "copies", tmp_path / "duplicate/copies")
        known = ImageCache(tmp_path).seen
        found = look_at([f"{tmp_path}/tree/turned.jpg"], lambda _: f"{tmp_path}/duplicate/copies/turned.jpg.png", known)
        assert found.image.path == f"{tmp_path}/duplicate/copies/turned.jpg.png"

    def test_a_missing_image_is_looked_for_every_time(self, tmp_path: Path) -> None:
        (tmp_path / "tree").mkdir()
        assert inspect(tmp_path, "x.png")["x.png"].problem == "IMAGE_MISSING"
        (tmp_path / "tree/x.png").write_bytes(PNG)
        assert inspect(tmp_path, "x.png")["x.png"].problem is None

    def test_a_damaged_cache_costs_time_only(self, names: list[str], looked_at: list[str], tmp_path: Path) -> None:
        first = inspect(tmp_path, *names)
        cache = tmp_path / images.CACHE
        cache.write_bytes(cache.read_bytes()[:-9])
        looked_at.clear()
        assert inspect(tmp_path, *names) == first
        assert len(looked_at) == 4
