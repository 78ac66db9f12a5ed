"""Classes of urban scenes (CamVid, Cityscapes): what their prompts say."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Template:
    """What the prompts of one class say beside what is measured.

    Attributes:
        descriptions: what it is, to follow "which is"; without any there are no P7 to P9.
        countable: whether it has a number and a shape; sky and road have none.
    """

    descriptions: tuple[str, ...] = ()
    countable: bool = True


def _thing(*descriptions: str) -> Template:
    return Template(descriptions)


def _stuff(*descriptions: str) -> Template:
    return Template(descriptions, countable=False)


STREET = {
    "road": _stuff("the paved ground that vehicles drive on", "the lane ahead of the camera"),
    "sidewalk": _stuff("the raised path for people on foot", "the paved strip beside the road"),
    "pavement": _stuff("the raised path for people on foot", "the paved strip beside the road"),
    "building": _stuff("a house or another block with walls and windows", "the fronts that line the street"),
    "wall": _stuff("a wall that stands by itself", "masonry that is no part of a house"),
    "fence": _stuff("a barrier of wire, wood or metal bars", "a railing that can be seen through"),
    "vegetation": _stuff("trees, hedges and other upright plants", "the green leaves above the ground"),
    "tree": _stuff("a trunk with branches and leaves", "the green crowns along the street"),
    "terrain": _stuff("grass, soil or sand on the ground", "flat ground beside the road that is not paved"),
    "sky": _stuff("the open space above the roofs", "the bright or cloudy part on top"),
    "pole": _thing("an upright post", "a thin mast that carries lamps or signs"),
    "traffic light": _thing("a signal with red, yellow and green lamps", "a box of lamps that tells who may drive"),
    "traffic sign": _thing("a plate that tells drivers what to do", "a board with a symbol on a post"),
    "sign symbol": _thing("a plate that tells drivers what to do", "a board with a symbol on a post"),
    "person": _thing("a human who walks or stands", "somebody on foot"),
    "pedestrian": _thing("a human who walks or stands", "somebody on foot"),
    "rider": _thing("a human on a bicycle or a motorcycle", "somebody who sits on two wheels"),
    "bicyclist": _thing("a human on a bicycle", "somebody who rides on two wheels"),
    "car": _thing("a passenger vehicle with four wheels", "a vehicle for a few people"),
    "truck": _thing("a heavy vehicle that carries goods", "a vehicle with a cargo bed or a trailer"),
    "bus": _thing("a long vehicle for many passengers", "a public vehicle with many windows"),
    "train": _thing("a vehicle on rails", "a tram or a row of wagons"),
    "motorcycle": _thing("a vehicle with two wheels and an engine", "a motorbike or a scooter"),
    "bicycle": _thing("a vehicle with two wheels and pedals", "a bike without an engine"),
}
