"""Names of MedMNIST's classes in the order of their numbers, by its `medmnist/info.py`, and a question per set."""

from collections.abc import Mapping

_ORGANS = ("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left",
           "lung-right", "pancreas", "spleen")  # fmt: skip
NAMES: Mapping[str, tuple[str, ...]] = {
    "pathmnist": ("adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
                  "cancer-associated stroma", "colorectal adenocarcinoma epithelium"),
    "chestmnist": ("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia",
                   "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia"),
    "dermamnist": ("actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma",
                   "benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi",
                   "vascular lesions"),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": ("grade 0", "grade 1", "grade 2", "grade 3", "grade 4"),
    "breastmnist": ("malignant", "normal, benign"),
    "bloodmnist": ("basophil", "eosinophil", "erythroblast",
                   "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)", "lymphocyte", "monocyte",
                   "neutrophil", "platelet"),
    "tissuemnist": ("Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule", "Glomerular endothelial cells",
                    "Interstitial endothelial cells", "Leukocytes", "Podocytes", "Proximal Tubule Segments",
                    "Thick Ascending Limb"),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
}  # fmt: skip
QUESTIONS: Mapping[str, str] = {
    "pathmnist": "Which tissue does this histology image show?",
    "chestmnist": "Which findings does this chest X-ray show?",
    "dermamnist": "Which skin lesion does this dermatoscopic image show?",
    "octmnist": "What does this retinal OCT image show?",
    "pneumoniamnist": "What does this chest X-ray of a child show?",
    "retinamnist": "Which grade of diabetic retinopathy does this fundus image show?",
    "breastmnist": "What does this breast ultrasound image show?",
    "bloodmnist": "Which blood cell does this microscope image show?",
    "tissuemnist": "Which kidney cortex cell does this microscope image show?",
    "organamnist": "Which organ is in the middle of this axial CT image?",
    "organcmnist": "Which organ is in the middle of this coronal CT image?",
    "organsmnist": "Which organ is in the middle of this sagittal CT image?",
}
