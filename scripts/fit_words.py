"""Where the limits and colours of the prompt engine come from: fits to the training splits of prepared datasets.

    python scripts/fit_words.py endoscopy=data/processed/kvasir_seg skin=data/processed/isic2016

Prints, by dataset, the limits that agree best with the published words, and the field's colours for
`featherseg/data/prompts/fields.py`. Only the split `train` is read.
"""

import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from featherseg.data.prepared import PreparedDataset  # noqa: E402
from featherseg.data.prompts import prompt_engine
from featherseg.data.prompts.fields import Palette  # noqa: E402
from featherseg.papers.medvlsm.agreement import SHAPE_OF, cohens_kappa  # noqa: E402

RAREST = 0.008  # share of the training split below which a colour word is left out
FOLDS = 5


def main(arguments: list[str]) -> None:
    """Print the fits of every `field=folder`."""
    for field, folder in (argument.split("=", 1) for argument in arguments):
        dataset = PreparedDataset.read(folder)
        samples = [sample for sample in dataset.split("train") if sample.attributes and sample.area_fraction]
        largest = [max(prompt_engine.parts_of(dataset.mask(sample)), key=lambda part: part.pixels)
                   for sample in samples]
        print(f"{field}: {len(samples)} samples of {folder}")
        print("  size limits", size_limits([part.pixels / (sample.height * sample.width)
                                            for part, sample in zip(largest, samples, strict=True)],
                                           [sample.attributes["size"] for sample in samples]))
        outlines = np.array([prompt_engine.outline_of(part) for part in largest])
        shapes = np.array([SHAPE_OF.get(sample.attributes["shape"], "other") for sample in samples])
        smooth = np.isin(shapes, ["round", "oval"])
        print(f"  solidity of the least solid twentieth of round and oval {np.percentile(outlines[smooth, 0], 5):.3f}")
        print("  elongation", elongation(outlines[smooth, 2], shapes[smooth]))
        colours(np.array([prompt_engine.colour_of(dataset.image(sample), dataset.mask(sample)) for sample in samples]),
                np.array([sample.attributes["colour"] for sample in samples]))


def size_limits(areas: list[float], words: list[str]) -> str:
    """The two limits between small, medium and large that agree with most published words (the largest of each)."""
    published = np.array([word.split(", ")[-1] for word in words])
    grid = np.round(np.arange(0.03, 0.45, 0.01), 3)

    def agreement(limits: tuple[float, float]) -> float:
        return float((np.array(["small", "medium", "large"])[np.digitize(areas, limits)] == published).mean())

    best = max(combinations(grid, 2), key=agreement)
    return f"{best[0]} and {best[1]} (agreement {agreement(best):.3f}; 0.08 and 0.3: {agreement((0.08, 0.3)):.3f})"


def elongation(lengths: np.ndarray, shapes: np.ndarray) -> str:
    """Cohen's kappa of round and oval by the elongation from which oval is said."""
    kappas = {limit: cohens_kappa(shapes, np.where(lengths >= limit, "oval", "round"))
              for limit in np.round(np.arange(1.1, 2.0, 0.1), 1)}
    return ", ".join(f"{limit}: {kappa:.3f}" for limit, kappa in kappas.items())


def colours(lab: np.ndarray, words: np.ndarray) -> None:
    """Print points, spread and weights of a palette; the power of the priors is the best in cross-validation."""
    counts = Counter(words.tolist())
    names = [word for word, count in counts.most_common() if count >= RAREST * len(words)]
    kept = np.isin(words, names)
    lab, words = lab[kept], words[kept]
    fold = np.arange(len(words)) % FOLDS
    kappas = {}
    for power in (0.0, 0.5, 1.0):
        said = np.empty(len(words), dtype=object)
        for number in range(FOLDS):
            palette = fit_palette(lab[fold != number], words[fold != number], names, power)
            said[fold == number] = [palette.word(colour) for colour in lab[fold == number]]
        kappas[power] = cohens_kappa(words, said)
    best = max(kappas, key=kappas.get)
    palette = fit_palette(lab, words, names, best)
    print("  kappa by power of the priors", {power: round(kappa, 3) for power, kappa in kappas.items()})
    print("  points ", {name: tuple(round(value, 1) for value in point) for name, point in palette.points})
    print("  spread ", tuple(round(value, 1) for value in palette.spread))
    print("  weights", {name: round(weight, 2) for name, weight in palette.weights.items()})


def fit_palette(lab: np.ndarray, words: np.ndarray, names: list[str], power: float) -> Palette:
    """A palette by the mean of each word's colours, the deviations within words, and the words' shares to a power."""
    points = {name: lab[words == name].mean(axis=0) for name in names}
    spread = np.sqrt(np.mean([(colour - points[word]) ** 2 for colour, word in zip(lab, words, strict=True)], axis=0))
    weights = {name: power * float(np.log((words == name).mean())) for name in names}
    return Palette([(name, tuple(map(float, point))) for name, point in points.items()], tuple(map(float, spread)),
                   weights)


if __name__ == "__main__":
    main(sys.argv[1:])
