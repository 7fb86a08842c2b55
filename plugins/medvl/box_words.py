"""What the box parser (`medvl.box_scanner`) looks for: its tokens, and the keys under which models and datasets put
boxes, labels, outlines and what is neither."""

import re

# The name of boxes that conversion draws into training answers (`preprocess/grounding.py --noise-objects`). Reserved:
# boxes of this name are no objects, so no class can have it; one that is really called "noise" can be found.
NOISE_LABEL = "#noise"

TOKEN = re.compile(
    r"""(?P<ref><ref>[^<]*</ref>|<\|object_ref_start\|>[^<]*<\|object_ref_end\|>|<\|ref\|>[^<]*<\|/ref\|>)
      | (?P<nothing><box></box>|<\|box_start\|><\|box_end\|>|<\|det\|><\|/det\|>)
      | (?P<tag><box>|<\|box_start\|>|<\|det\|>)
      | (?P<quad><quad>|<\|quad_start\|>) | (?P<quad_end></quad>|<\|quad_end\|>)
      | (?P<open>[\[({]) | (?P<close>[\])}])
      | (?P<number>(?<![\w.])[-+]?(?:[0-9]++(?>(?:\.[0-9]*+)?)|\.[0-9]++)(?>(?:[eE][-+]?[0-9]++)?)(?!\w))
      | (?P<quote>"|(?<!\w)')""",
    re.VERBOSE,
)  # atomic everywhere: a failing match costs its own length only. `(...)*+` errs before Python 3.11.5
STRING = {
    '"': re.compile(r'"((?>(?:[^"\\\n]++|\\.)*))"'),
    "'": re.compile(r"'((?>(?:[^'\\\n]++|\\.|(?<=\w)'(?=\w))*))'(?!\w)"),  # an apostrophe inside a word closes nothing
}
KEY_FOLLOWS = re.compile(r"\s*:")
NULL_FOLLOWS = re.compile(r"\s*(?:null|None)\b")
OPENING = re.compile(r"[\[({]")
BOXES_INSIDE = re.compile(r"""[\[({]\s*[\[({"'0-9.-]""")
BARE = re.compile(r"\s*" + r"[,;\s]+".join([r"([-+]?[0-9]+(?:\.[0-9]+)?)"] * 4) + r"\.?\s*")
LIST_MARK_END = re.compile(r"[.)]?\s+\S")  # behind the number of "1. lesion" and "1) lesion"

# Gemini, Gemma and MedGemma: [y_min, x_min, y_max, x_max] in 0-1000, whatever frame the rest of a file is in.
Y_FIRST_KEYS = {"box_2d", "box2d", "boxes_2d"}
# Four numbers that are no two corners, by their key.
XYWH_KEYS, CENTRE_BOX_KEYS = {"xywh", "bbox_xywh", "box_xywh"}, {"cxcywh", "bbox_cxcywh", "box_cxcywh"}
# Beside a `bbox` they are marks of COCO, whose boxes are x, y, width and height.
COCO_KEYS = {"category_id", "iscrowd"}
BOX_KEYS = Y_FIRST_KEYS | XYWH_KEYS | CENTRE_BOX_KEYS | {
    "xyxy", "bbox_xyxy", "box_xyxy",
    "bbox_2d", "bbox", "bboxes", "box", "boxes", "coordinates", "coordinate", "bounding_box", "bounding_boxes",
    "location", "locations", "position", "positions",
}  # fmt: skip
LABEL_KEYS = {"label", "name", "class", "class_name", "category", "type", "cell_type", "object", "structure", "id",
              "identifier", "chromosome", "chromosome_id", "chromosome_number", "chromosome_type",
              "category_id", "category_name", "class_id"}  # fmt: skip
# Beside a list of boxes: one name per box, or one for all.
LABEL_LIST_KEYS = {"labels", "names", "classes", "class_names", "categories"}
CORNER_KEYS = {"x1": 0, "y1": 1, "x2": 2, "y2": 3, "x_min": 0, "y_min": 1, "x_max": 2, "y_max": 3, "xmin": 0,
               "ymin": 1, "xmax": 2, "ymax": 3, "left": 0, "top": 1, "right": 2, "bottom": 3}  # fmt: skip
SIDE_KEYS = {"x": 0, "y": 1, "width": 2, "height": 3, "w": 2, "h": 3}
CENTRE_KEYS = {"cx": 0, "cy": 1, "xc": 0, "yc": 1, "x_center": 0, "y_center": 1, "center_x": 0, "center_y": 1}
PLACE_KEYS = CORNER_KEYS.keys() | SIDE_KEYS.keys() | CENTRE_KEYS.keys()
# One object each: all points below such a key are corners of one outline.
OUTLINE_KEYS = {"points", "polygon", "poly", "segmentation", "contour", "outline", "vertices", "quad", "obb",
                "rotated_box", "mask"}  # fmt: skip
MASK_KEYS = {"rle", "counts"}  # run lengths, which tell no corner without decoding
ANGLE_KEYS = {"angle", "rotation", "theta"}
# Numbers below these are no boxes and no names.
OTHER_KEYS = {"score", "scores", "confidence", "confidences", "conf", "probability", "probabilities", "prob", "probs",
              "logits", "size", "image_size", "center", "centre", "centroid"} | ANGLE_KEYS  # fmt: skip
# These name no object; "x" and "y" may: they are chromosomes.
STRUCTURAL_KEYS = BOX_KEYS | LABEL_KEYS | LABEL_LIST_KEYS | OUTLINE_KEYS | MASK_KEYS | OTHER_KEYS | {
    "polygons", "masks"
}  # fmt: skip
