"""Scenes whose every pixel has a class, by an index or a colour: one row per image and class in it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from featherseg.core.errors import UserError
from featherseg.data.assemble import Pixels, Row, write_rows
from featherseg.data.card import About, write_card
from featherseg.data.images import open_picture
from featherseg.data.prepared import PreparedWriter
from featherseg.data.prompts.prompt_engine import PromptEngine
from featherseg.data.raw.spec import LabelMapSpec, Scene

_SHIFTS = np.array([1 << 16, 1 << 8, 1])


def prepare_label_maps(spec: LabelMapSpec, raw_dir: Path, out_dir: Path) -> None:
    """Write the prepared dataset of a downloaded set of label maps, with its card.

    Raises:
        UserError: a class without a prompt template, a label that is no class, or an unreadable or absent file;
            nothing is written.
    """
    engine = PromptEngine(spec.field)
    for name in dict.fromkeys(filter(None, (*spec.indices.values(), *spec.colours.values()))):
        engine.template(name)
    scenes = spec.scenes(raw_dir)
    if not scenes:
        raise UserError(f"{raw_dir} holds no scene of {spec.title}; put the unchanged archive into the inbox and "
                        "download again.")
    notes = ("A class that an image lacks is no row.", *([spec.note] if spec.note else []))

    def finish(folder: Path) -> None:
        write_card(folder, About(spec.title, spec.source, spec.licence, spec.citation, (*notes, *engine.notes())))

    with PreparedWriter(out_dir, dataset=spec.name, finish=finish) as writer:
        write_rows((row for scene in scenes for row in _rows(spec, scene)), writer, None, engine)


def _rows(spec: LabelMapSpec, scene: Scene) -> Iterator[Row]:
    """One row for each class that is in a scene, in the order of the spec."""
    picture = open_picture(scene.labels).image
    labels, classes = np.asarray(picture), spec.indices
    if labels.ndim == 3:
        labels = np.asarray(picture.convert("RGB")) @ _SHIFTS
        classes = {int(colour @ _SHIFTS): name for colour, name in zip(
            np.array(list(spec.colours)), spec.colours.values(), strict=True)}
    present = np.unique(labels).tolist()
    if unknown := [label for label in present if label not in classes]:
        code = f"colour #{unknown[0]:06x}" if classes is not spec.indices else f"label {unknown[0]}"
        raise UserError(f"{scene.labels} has pixels of the {code}, which is no class of {spec.title}; get the archive "
                        f"again, or add the class to featherseg/data/official/{spec.name}.py.")
    for name in dict.fromkeys(classes[label] for label in classes if label in present):
        if name is not None:
            mask = np.isin(labels, [label for label in present if classes[label] == name])
            yield Row(str(scene.labels), scene.image_id, scene.image,
                      (Pixels(f"{scene.labels}, {name},", partial(np.asarray, mask)),), name, scene.split,
                      scene.group, None, {})
