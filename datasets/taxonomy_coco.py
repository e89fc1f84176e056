"""The object classes of COCO, by category id."""

from __future__ import annotations

from datasets.taxonomy import SegClass, same_ids, voc_colour

# Categories that were named but never annotated; no image has a pixel of them.
COCO_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)

_NAMES = (
    "background",
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "street sign", "stop sign", "parking meter", "bench"),
    *("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    *("hat", "backpack", "umbrella", "shoe", "eye glasses", "handbag", "tie", "suitcase"),
    *("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove"),
    *("skateboard", "surfboard", "tennis racket", "bottle", "plate", "wine glass", "cup", "fork"),
    *("knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot"),
    *("hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "mirror"),
    *("dining table", "window", "desk", "toilet", "door", "tv", "laptop", "mouse", "remote"),
    *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator"),
    *("blender", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)

# The train id is the category id, 0 is background: 91 channels, ten of them unused.
COCO = tuple(SegClass(name, voc_colour(index)) for index, name in enumerate(_NAMES))
COCO_TRAIN_IDS = same_ids(COCO)

# The 80 classes that are annotated, in the order of their ids.
COCO_80 = tuple(
    entry.name for index, entry in enumerate(COCO) if index not in (0, *COCO_UNUSED_IDS)
)
