"""The 19 datasets of FLARE-Task5-MLLM-2D."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FlareDataset:
    """One dataset of FLARE-Task5-MLLM-2D.

    Attributes:
        name: Folder name, spelled as in the release.
        category: Name of the folder above it. More reliable than the records' `Modality`.
        multi_image: Whether records hold several images (views, frames, photos of one case).
        label_separator: What separates labels in multi-label answers. A `;` dataset may hold commas inside a label.
    """

    name: str
    category: str
    multi_image: bool = False
    label_separator: str | None = None


FLARE_DATASETS: dict[str, FlareDataset] = {
    dataset.name: dataset
    for dataset in (
        FlareDataset("retino", "Retinography"),
        FlareDataset("fundus", "Retinography"),
        FlareDataset("BUSI-det", "Ultrasound"),
        FlareDataset("BUS-UCLM-det", "Ultrasound"),
        FlareDataset("BUSI", "Ultrasound"),
        FlareDataset("BUS-UCLM", "Ultrasound"),
        FlareDataset("iugc", "Ultrasound"),
        FlareDataset("boneresorption", "Xray"),
        FlareDataset("dental", "Xray"),
        FlareDataset("periapical", "Xray", label_separator=";"),
        FlareDataset("IU_XRay", "Xray", multi_image=True),
        FlareDataset("chestdr", "Xray", label_separator=","),
        FlareDataset("neojaundice", "Clinical", multi_image=True),
        FlareDataset("chromosome", "Microscopy"),
        FlareDataset("neurips22cell", "Microscopy"),
        FlareDataset("bone_marrow", "Microscopy"),
        FlareDataset("endo", "Endoscopy", multi_image=True),
        FlareDataset("bcn20000", "Dermatology", multi_image=True),
        FlareDataset("CMMD", "Mammography", multi_image=True),
    )
}

# First part of image names -> dataset, as in the release. Only for files that stand outside a tree.
IMAGE_PREFIXES = {
    "bcn20000": "bcn20000", "bone_marrow": "bone_marrow", "boneresorption": "boneresorption", "bus-uclm": "BUS-UCLM",
    "busi": "BUSI", "cell": "neurips22cell", "chestdr": "chestdr", "chrm": "chromosome", "cmmd": "CMMD",
    "endo": "endo", "fundus": "fundus", "iu-xray": "IU_XRay", "iugc": "iugc", "neojaundice": "neojaundice",
    "prml": "periapical", "pxmt": "dental", "retino": "retino",
}  # fmt: skip
SHARED_IMAGES = ("busi", "bus-uclm")  # prefixes of two datasets each, one of them for detection (`-det`)
