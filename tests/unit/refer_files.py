"""Small archives in the very form in which REFER and COCO publish theirs, pickles of Python 2 included."""

import io
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
from data_files import colours, picture_bytes, write_zip

HEIGHT, WIDTH = 40, 60
CATEGORY = "person"


class Python2Pickler(pickle._Pickler):
    """Writes text as Python 2 wrote its byte strings."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_str(self, text: str) -> None:
        data = text.encode()
        if not self.bin:
            self.write(pickle.STRING + repr(data)[1:].encode() + b"\n")
        elif len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[str] = save_str


def python_2_pickle(value: Any, protocol: int) -> bytes:
    """A value as Python 2 pickled it, with protocol 0, 1 or 2."""
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def file_name(image_id: int) -> str:
    return f"COCO_train2014_{image_id:012d}.jpg"


def reference(ref_id: int, split: str = "train", image_id: int = 1, ann_id: int | None = None,
              sentences: tuple[str, ...] = ("left one", "the red one", "Man")) -> dict:
    """One reference as REFER holds it; its annotation has the same number where none is named."""
    ann_id = ref_id if ann_id is None else ann_id
    return {"ref_id": ref_id, "ann_id": ann_id, "image_id": image_id, "split": split, "category_id": 1,
            "file_name": file_name(image_id).replace(".jpg", f"_{ref_id}.jpg"),
            "sent_ids": [10 * ref_id + number for number in range(len(sentences))],
            "sentences": [{"raw": f"{text} é!", "sent": text, "sent_id": 10 * ref_id + number, "tokens": text.split()}
                          for number, text in enumerate(sentences)]}


def rectangle(x0: int, y0: int, x1: int, y1: int) -> list[float]:
    """A rectangle's polygon; its pixels are those from (x0, y0) up to, without, (x1, y1)."""
    return [float(value) for value in (x0, y0, x1, y0, x1, y1, x0, y1)]


def annotation(ann_id: int, segmentation: Any, image_id: int = 1, category_id: int = 1) -> dict:
    return {"id": ann_id, "image_id": image_id, "category_id": category_id, "segmentation": segmentation, "iscrowd": 0,
            "bbox": [1.0, 2.0, 3.0, 4.0], "area": 12.0}


def write_archives(folder: Path, references: list[dict], annotations: list[dict], images: tuple[int, ...] = (1, 2, 3),
                   archive: str = "refcoco.zip", split_by: str = "unc", protocol: int = 0,
                   pickled: bytes | None = None, spare: bytes = b"") -> Path:
    """`<archive>` and `train2014.zip` in a folder that serves as a mirror.

    Args:
        images: numbers of the images that both archives hold; train2014.zip has number 99 beside them.
        pickled: the pickle itself where it is to be no good one.
        spare: an image's bytes in place of a good JPEG.
    """
    name = archive.removesuffix(".zip")
    instances = {
        "info": {"year": 2014}, "licenses": [{"id": 1, "name": "x", "url": "y"}],
        "images": [{"id": number, "file_name": file_name(number), "height": HEIGHT, "width": WIDTH, "license": 1}
                   for number in images],
        "annotations": annotations,
        "categories": [{"id": 1, "name": CATEGORY, "supercategory": "person"}, {"id": 7, "name": "cell phone"}]}
    write_zip(folder / archive, {
        f"{name}/instances.json": json.dumps(instances), f"__MACOSX/{name}/._refs": b"junk",
        f"{name}/refs({split_by}).p": python_2_pickle(references, protocol) if pickled is None else pickled})
    write_zip(folder / "train2014.zip", {
        f"train2014/{file_name(number)}": spare or picture_bytes(colours(HEIGHT, WIDTH, number), "JPEG")
        for number in (*images, 99)})
    return folder


def box_of(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask
