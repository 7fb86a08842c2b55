"""The 19 datasets of FLARE-Task5-MLLM-2D."""

from dataclasses import dataclass

from medvl.tasks import unknown_name


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


def flare_dataset(name: str) -> FlareDataset:
    """The FLARE dataset of that exact name.

    Raises:
        UnknownNameError: not one of the 19.
    """
    try:
        return FLARE_DATASETS[name]
    except KeyError:
        raise unknown_name("FLARE dataset", name, FLARE_DATASETS) from None


def label_separator(dataset: str) -> str | None:
    """The label separator of a dataset, None where it is not known (the answer then decides for itself)."""
    known = FLARE_DATASETS.get(dataset)
    return known.label_separator if known else None
