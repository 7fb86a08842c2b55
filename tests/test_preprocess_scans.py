"""DICOM and NIfTI as images: pydicom's and nibabel's own test files, and small ones made here for what these lack."""

import gzip
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from medvl.errors import DataError
from medvl.sharegpt import read_records
from preprocess.decoding import Rendering, examine
from preprocess.flare import main
from preprocess.scan_files import ScanOptions
from preprocess.scans import frames_in, is_scan, render, split_frame
from tests.support.flare_tree import row, write_tree

NIFTI = Path(nibabel.__file__).parent / "tests" / "data"
SECRET = "Doe^Jane"


def dicom(values: np.ndarray[Any, Any], **tags: Any) -> bytes:
    """A DICOM file of grey values of 16 bits, shape (rows, columns) or (frames, rows, columns)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientName, dataset.SOPClassUID, dataset.SOPInstanceUID = SECRET, SecondaryCaptureImageStorage, "1.2.3"
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    if values.ndim == 3:
        dataset.NumberOfFrames = len(values)
    dataset.PixelData = values.astype("<i2").tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def shown(data: bytes, name: str = "a.dcm", **options: Any) -> list[list[int]]:
    return np.asarray(render(name, data, ScanOptions(**options))[0]).tolist()


RAMP = np.array([[0, 50, 100, 150, 200]])


@pytest.mark.parametrize(
    ("tags", "options", "expected"),
    [
        ({"WindowCenter": 100, "WindowWidth": 200}, {}, [0, 64, 128, 191, 255]),
        ({"WindowCenter": [100, 50], "WindowWidth": [200, 10]}, {}, [0, 64, 128, 191, 255]),  # the first of several
        ({"WindowCenter": 100, "WindowWidth": 200}, {"window": (50.0, 100.0)}, [0, 128, 255, 255, 255]),
        ({"RescaleSlope": 2, "RescaleIntercept": -100, "WindowCenter": 100, "WindowWidth": 400}, {},
         [0, 64, 128, 191, 255]),
        ({"WindowCenter": 100, "WindowWidth": 200, "PhotometricInterpretation": "MONOCHROME1"}, {},
         [255, 191, 127, 64, 0]),
        ({"WindowCenter": 100, "WindowWidth": 100, "VOILUTFunction": "SIGMOID"}, {}, [5, 30, 128, 225, 250]),
        ({}, {}, [0, 64, 128, 191, 255]),  # percentiles
        ({"PixelPaddingValue": 0}, {}, [0, 0, 85, 170, 255]),  # what lies outside the view moves no percentile
        ({"WindowCenter": 100}, {}, [0, 64, 128, 191, 255]),  # no width: no window
    ],
    ids=["tags", "several", "stated", "rescaled", "inverted", "sigmoid", "percentiles", "padding", "half a window"],
)  # fmt: skip
def test_values_become_grey(tags: dict[str, Any], options: dict[str, Any], expected: list[int]) -> None:
    (grey,) = shown(dicom(RAMP, **tags), **options)
    assert grey == pytest.approx(expected, abs=2)


def test_a_lookup_table_of_the_file() -> None:
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [201, 0, 8])
    item.add_new("LUTData", "US", list(range(200, -1, -1)))
    assert shown(dicom(RAMP, VOILUTSequence=[item])) == [[200, 150, 100, 50, 0]]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [("a.dcm", {}, [20]), ("a.dcm", {"slices": "first"}, [0]), ("a.dcm#4", {}, [40]),
     ("a.dcm#4", {"slices": "first"}, [40]), ("a.dcm", {"slices": "montage"}, [0, 10, 20, 30, 40, 0])],
    ids=["middle", "first", "named", "named wins", "montage"],
)  # fmt: skip
def test_frames(name: str, options: dict[str, Any], expected: list[int]) -> None:
    data = dicom(np.array([[[10 * frame]] for frame in range(5)]), WindowCenter=127.5, WindowWidth=255)
    assert np.ravel(shown(data, name, **options)).tolist() == pytest.approx(expected, abs=1)
    assert frames_in(name, data, ScanOptions()) == 5


@pytest.mark.parametrize(
    ("name", "size", "mode"),
    [("CT_small.dcm", (128, 128), "L"), ("MR_small_RLE.dcm", (64, 64), "L"), ("MR_small_bigendian.dcm", (64, 64), "L"),
     ("MR_small_jp2klossless.dcm", (64, 64), "L"), ("MR_small_jpeg_ls_lossless.dcm", (64, 64), "L"),
     ("SC_rgb_jpeg_gdcm.dcm", (100, 100), "RGB"), ("SC_rgb_dcmtk_+eb+cy+np.dcm", (100, 100), "RGB"),
     ("SC_rgb_rle_16bit_2frame.dcm", (100, 100), "RGB"), ("examples_palette.dcm", (800, 350), "RGB"),
     ("examples_ybr_color.dcm", (320, 240), "RGB"), ("liver_1frame.dcm", (512, 512), "L"),
     ("rtdose_rle.dcm", (10, 10), "L"), ("image_dfl.dcm", (512, 512), "L")],
)  # fmt: skip
def test_pydicoms_own_files(name: str, size: tuple[int, int], mode: str) -> None:
    path = get_testdata_file(name, download=False)
    data = Path(path).read_bytes()
    assert is_scan(path, data)
    image, said = render(path, data, ScanOptions())
    assert (image.size, image.mode) == (size, mode)
    assert said.startswith("DICOM")
    assert image.convert("L").getextrema()[1] > 100


def test_colours_are_those_of_pydicom() -> None:
    path = get_testdata_file("SC_rgb_jpeg_dcmd.dcm", download=False)
    expected = pydicom.dcmread(path).pixel_array
    assert np.array_equal(np.asarray(render(path, Path(path).read_bytes(), ScanOptions())[0]), expected)


def test_a_volume_lies_as_radiologists_see_it(tmp_path: Path) -> None:
    """The patient's right on the left, the front and the head on top, however the volume is stored."""
    volume = np.zeros((4, 3, 2))
    volume[3, 2, 1] = 100  # of axes that run to left, back and feet: the leftmost, hindmost, lowest
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-1.0, -1.0, -1.0, 1.0])), tmp_path / "a.nii.gz")
    path, data = str(tmp_path / "a.nii.gz"), (tmp_path / "a.nii.gz").read_bytes()
    cuts: dict[str, tuple[int, tuple[int, int], list[int]]] = {
        "axial": (0, (3, 4), [2, 3]), "coronal": (0, (2, 4), [1, 3]), "sagittal": (0, (2, 3), [1, 2])}  # fmt: skip
    for plane, (place, shape, bright) in cuts.items():
        options = ScanOptions(window=(50, 100), plane=plane)  # type: ignore[arg-type]
        shown = np.asarray(render(f"{path}#{place}", data, options)[0])
        assert (shown.shape, np.argwhere(shown).tolist()) == (shape, [bright]), plane


def test_pixels_of_a_volume_are_made_square(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random((8, 8, 4)), np.diag([1.0, 1.0, 4.0, 1.0])),
                 tmp_path / "a.nii")  # fmt: skip
    data = (tmp_path / "a.nii").read_bytes()
    assert render(str(tmp_path / "a.nii"), data, ScanOptions(plane="coronal"))[0].size == (8, 16)


@pytest.mark.parametrize("name", ["anatomical.nii", "functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz"])
def test_nibabels_own_files(name: str) -> None:
    image, said = render(str(NIFTI / name), (NIFTI / name).read_bytes(), ScanOptions(slices="montage"))
    assert image.mode == "L"
    assert min(image.size) > 10
    assert ("first of several volumes" in said) == ("4d" in name or "functional" in name or "nifti2" in name)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (dicom(RAMP)[:-4], r"cannot be read as DICOM or NIfTI \(\w+\)"),
        (dicom(RAMP, PixelData=None), "cannot be read|without an image"),
        (b"\0" * 128 + b"DICMgarbage", "without an image|cannot be read"),
        (b"no DICOM at all", "without an image|cannot be read"),
    ],
    ids=["cut", "no pixels", "garbage", "text"],
)
def test_what_cannot_be_shown_is_told_without_what_the_file_holds(tmp_path: Path, data: bytes, said: str) -> None:
    info = examine(str(tmp_path / "a.dcm"), str(tmp_path / "a.png"), data, Rendering())
    assert (info.size, info.problem) == (None, "IMAGE_UNREADABLE")
    assert SECRET not in info.detail
    with pytest.raises(DataError, match=said):
        render("a.dcm", data, ScanOptions())


def tagged(element: int, value: bytes, **tags: Any) -> bytes:
    """A DICOM file in which the value of a tag of group 0028 is overwritten."""
    data = bytearray(dicom(np.zeros((2, 1, 1)), **tags))
    place = data.find(b"\x28\x00" + element.to_bytes(2, "little")) + 8
    data[place : place + len(value)] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tagged(0x0008, b"Jo"), r"cannot be read as DICOM or NIfTI \(ValueError\)"),
        (tagged(0x1050, b"Jo", WindowCenter=10, WindowWidth=20), r"cannot be read as DICOM or NIfTI \(ValueError\)"),
        (dicom(np.zeros((2, 1, 1)), NumberOfFrames=10**6), "says that it has 1000000 frames"),
        (dicom(np.zeros((9, 9, 9)), NumberOfFrames=10), "says that it has 10 frames"),
        (dicom(np.zeros((2, 1, 1)), NumberOfFrames=-4), "says that it has -4 frames"),
    ],
    ids=[
        "a name as number of frames",
        "a name as window",
        "a million frames",
        "one too many",
        "fewer frames than none",
    ],
)
def test_damaged_tags_are_told_and_never_quoted(
    tmp_path: Path, data: bytes, said: str, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    info = examine(str(tmp_path / "a.dcm"), str(tmp_path / "a.png"), data, Rendering())
    assert info.problem == "IMAGE_UNREADABLE"
    assert re.search(said, info.detail) and "Jo" not in info.detail
    with pytest.raises(DataError, match=said):
        frames_in("a.dcm", data, ScanOptions()) if "frames" in said else render("a.dcm", data, ScanOptions())
    assert not recwarn.list and capfd.readouterr() == ("", "")


def nifti(path: Path, values: Any, affine: Any = None) -> str:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return str(path)


@pytest.mark.parametrize(
    ("cut", "expected"),
    [([np.nan, 1000, 1001], [0, 0, 255]), ([np.inf, 0, 10], [255, 0, 255]), ([-np.inf, 0, 10], [0, 0, 255]),
     ([np.nan] * 3, [0, 0, 0])],
    ids=["no number", "infinite", "below all", "nothing else"],
)  # fmt: skip
def test_what_is_no_number_moves_no_window(tmp_path: Path, cut: list[float], expected: list[int]) -> None:
    path = nifti(tmp_path / "a.nii", np.array(cut, dtype="f4").reshape(3, 1, 1))
    assert sorted(shown(b"", path)[0]) == pytest.approx(sorted(expected), abs=3)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("a.nii", np.zeros((2, 2)), "a volume of real numbers"),
        ("a.nii", np.zeros((2, 2, 2), dtype=np.complex64), "a volume of real numbers"),
        ("a.nii", np.zeros((2, 2, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]), "a volume of real numbers"),
        ("a.nii", np.zeros((0, 2, 2)), "a volume of real numbers"),
    ],
    ids=["flat", "complex", "colours", "empty"],
)
def test_nifti_that_is_no_volume(tmp_path: Path, name: str, values: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        render(nifti(tmp_path / name, values), b"", ScanOptions())


def test_a_small_file_that_says_it_is_a_huge_volume(tmp_path: Path) -> None:
    path = Path(nifti(tmp_path / "a.nii", np.zeros((2, 2, 2), dtype="u1")))
    for sides, said in (((32767, 32767, 1024), "more than"), ((1024, 1024, 1024), "cannot be read")):
        header = bytearray(path.read_bytes()[:352])
        header[42:48] = np.array(sides, dtype="<i2").tobytes()
        bomb = tmp_path / "b.nii.gz"
        bomb.write_bytes(gzip.compress(bytes(header) + bytes(10**6)))
        with pytest.raises(DataError, match=said):
            render(str(bomb), b"", ScanOptions())


def test_of_a_volume_one_slice_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is stored: the whole of a CT would be gigabytes."""
    path = nifti(tmp_path / "a.nii", np.zeros((6, 5, 4), dtype="i2"), np.diag([-1.0, -1.0, 1.0, 1.0]))
    monkeypatch.setattr(nibabel.arrayproxy.ArrayProxy, "__array__", lambda *_, **__: pytest.fail("read in full"))
    assert render(path, b"", ScanOptions())[0].size == (6, 5)


def test_images_that_are_called_like_scans(tmp_path: Path) -> None:
    for suffix, layout in (("dcm", "PNG"), ("DICOM", "JPEG"), ("nii.gz", "PNG")):
        path = tmp_path / f"a.{suffix}"
        Image.new("RGB", (5, 4), "red").save(path, layout)
        assert examine(str(path), str(tmp_path / "c.png"), path.read_bytes(), Rendering()).size == (5, 4)


@pytest.mark.parametrize("name", ["a.hdr", "A.IMG"])
def test_a_pair_of_files_is_told_what_to_become(tmp_path: Path, name: str) -> None:
    info = examine(str(tmp_path / name), str(tmp_path / "c.png"), b"\0" * 348, Rendering())
    assert info.detail.endswith("no image of a known format; save a pair of .hdr and .img as .nii")


@pytest.mark.subprocess
def test_a_missing_extra_is_told_once_and_not_remembered(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--root", str(tree), "--out", str(tmp_path / "out"), "--dataset-info", str(tmp_path / "info.json")]
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "pydicom", None)
        for workers in ("1", "2"):
            assert main([*words, "--workers", workers]) == 2
            said = " ".join(capsys.readouterr().err.split())
            assert said.count('pip install --editable ".[scans]"') == 1 and ".dcm" in said
    records, _ = convert(tree, tmp_path / "out")
    assert len(records) == 3


def test_frames_of_a_file_without_suffix_are_not_left_out_in_silence() -> None:
    said = render("a", dicom(np.zeros((3, 1, 1))), ScanOptions(slices="all"))[1]
    assert said.startswith("DICOM, frame 0 of 3 alone, since only names that end in .dcm")


@pytest.mark.subprocess
def test_images_whose_names_differ_in_a_hash_sign_have_copies_of_their_own(tree: Path, tmp_path: Path) -> None:
    folder = tree / "training/Retinography/fundus/imagesTr"
    rows = [row("fundus", ImageName=f"imagesTr/{name}.png") for name in ("a#1", "a-1")]
    for place, of_row in enumerate(rows):
        Image.new("RGBA", (5 + place, 5), (200, 0, 0, 90)).save(folder.parent / of_row["ImageName"])
    (folder.parent / "fundus_questions_train.json").write_text(json.dumps(rows))
    records, _ = convert(tree, tmp_path / "out")
    assert [Image.open(record.images[0]).size for record in records] == [(5, 5), (6, 5)]


def test_a_frame_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"a\.dcm#9: has frames 0 to 1"):
        render("a.dcm#9", dicom(np.zeros((2, 1, 1))), ScanOptions())


def test_names_with_frames() -> None:
    assert split_frame("A/B.NII.GZ#7") == ("A/B.NII.GZ", 7)
    assert split_frame("a.dcm#x") == ("a.dcm#x", None)
    assert split_frame("a#1.png") == ("a#1.png", None)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A FLARE tree whose three images are a CT, a cine of three frames, and one that is cut off."""
    write_tree(tmp_path / "tree", {"fundus": [row("fundus", ImageName="imagesTr/x.png")]})
    names = ["imagesTr/x.png", *(f"imagesTr/{name}.dcm" for name in ("ct", "cine", "cut"))]
    folder = tmp_path / "tree/training/Retinography/fundus/imagesTr"
    rows = [row("fundus", ImageName=name) for name in names]
    (folder.parent / "fundus_questions_train.json").write_text(json.dumps(rows))
    gradient = np.arange(3 * 20 * 30).reshape(3, 20, 30)
    (folder / "ct.dcm").write_bytes(dicom(gradient[0]))
    (folder / "cine.dcm").write_bytes(dicom(gradient))
    (folder / "cut.dcm").write_bytes(dicom(gradient[0])[:-40])
    return tmp_path / "tree"


def convert(tree: Path, out: Path, *options: str) -> tuple[list[Any], dict[str, Any]]:
    words = ["--root", str(tree), "--out", str(out), "--dataset-info", str(out / "info.json"), "--workers", "1"]
    assert main([*words, *options]) == 0
    return read_records(out / "flare_all_train.json"), json.loads((out / "report.json").read_text())


@pytest.mark.subprocess
def test_a_source_may_name_scans(tree: Path, tmp_path: Path) -> None:
    records, report = convert(tree, tmp_path / "out")
    codes = [finding["code"] for finding in report["findings"]]
    assert (codes.count("SCAN_RENDERED"), codes.count("IMAGE_UNREADABLE")) == (2, 1)
    copies = [Path(record.images[0]) for record in records[1:]]
    assert [copy.suffix for copy in copies] == [".png", ".png"]
    assert [Image.open(copy).size for copy in copies] == [(30, 20), (30, 20)]
    assert [record.source.names for record in records[1:]] == [["imagesTr/ct.dcm"], ["imagesTr/cine.dcm"]]
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert SECRET.encode() not in written
    assert main(["--validate", str(tmp_path / "out")]) == 0
    assert "slices" not in report["options"]


@pytest.mark.subprocess
def test_all_frames_are_images_of_their_own(tree: Path, tmp_path: Path) -> None:
    records, report = convert(tree, tmp_path / "out", "--slices", "all", "--number-images")
    assert [len(record.images) for record in records] == [1, 1, 3]
    assert len(set(records[2].images)) == 3
    assert records[2].conversations[0].value.startswith("Image-1: <image>\nImage-2: <image>\nImage-3: <image>\n")
    assert report["options"]["slices"] == "all"


@pytest.mark.subprocess
def test_another_window_is_looked_at_anew(tree: Path, tmp_path: Path) -> None:
    first, _ = convert(tree, tmp_path / "out")
    before = Path(first[1].images[0]).read_bytes()
    again, _ = convert(tree, tmp_path / "out", "--window", "100,50")
    assert Path(again[1].images[0]).read_bytes() != before


@pytest.mark.subprocess
@pytest.mark.parametrize("words", ["40", "a,b", "40,0"])
def test_windows_that_are_none(words: str, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--root", str(tree), "--window", words])
    assert "--window" in capsys.readouterr().err
