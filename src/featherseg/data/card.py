"""The card of a prepared dataset: what it is, what is in it, and a sheet of examples."""

import itertools
import math
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from featherseg.core.files import not_run_reason
from featherseg.core.glyphs import NOTE, Lettering, drawable, is_drawable
from featherseg.core.markup import markdown_text
from featherseg.data.facts import FACTS, Facts, read_facts, write_facts
from featherseg.data.prepared import LEVELS, UNIQUE, PreparedDataset, Sample, prompt_of, read_samples

SHEET = "contact_sheet.png"
_TILES, _COLUMNS, _SIDE, _MARGIN, _LINE, _FONT_SIZE = 12, 4, 256, 12, 15, 12
_COLOURS = ("#e6194b", "#0082c8", "#f58231", "#3cb44b", "#911eb4", "#008080")
_MOST = 8
_LETTERS = 200  # more than two lines of a tile hold
_TOKENISED = 1000  # letters, enough for more tokens than any model reads


@dataclass(frozen=True)
class About:
    """What the files do not say themselves."""

    title: str
    source: str
    licence: str = "as the source says"
    citation: str | None = None
    notes: tuple[str, ...] = ()


def write_card(dataset_dir: Path, about: About) -> None:
    """Write `card.md`, `facts.json` and `contact_sheet.png` into a prepared dataset; equal data give equal bytes.

    Raises:
        UserError: the dataset cannot be read.
    """
    folder = Path(dataset_dir)
    tally = _Tally(read_samples(folder))
    facts = write_facts(folder)
    lengths = _token_lengths(read_samples(folder))
    (folder / "card.md").write_text(_text(tally, facts, about, lengths), encoding="utf-8")
    names = list(tally.sizes)
    at_even_distances = np.linspace(0, len(names) - 1, min(_TILES, len(names)))
    shown = {names[round(place)] for place in at_even_distances}
    samples = [sample for sample in read_samples(folder) if sample.image in shown]
    sheet = _contact_sheet(PreparedDataset(folder, {"status": "ok", "reason": None}, samples))
    sheet.save(folder / SHEET)


def card_faults(dataset_dir: Path) -> list[str]:
    """What is wrong with the card of a prepared dataset, one sentence each; a dataset that is missing needs no card.

    A card names a source and a licence, its figures are those of the samples, and a contact sheet lies beside it.

    Raises:
        UserError: the dataset cannot be read.
    """
    if not_run_reason(dataset_dir):
        return []
    path, facts, sheet = (Path(dataset_dir) / name for name in ("card.md", FACTS, SHEET))
    for file in (path, facts):
        if not file.is_file():
            return [f"{file} does not exist; run the prepare stage again."]
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    faults = [f"{path} names no {what.lower()}; run the prepare stage again." for what in ("Source", "Licence")
              if not _is_stated(what, lines)]
    expected = _listed(read_facts(dataset_dir).sentences())
    tally = _Tally(read_samples(dataset_dir))
    if tally.sizes:
        expected = [*_bulleted(_figures(tally)), *_sample_table(tally), *expected]
    stale = [line for line in expected if line not in lines]
    if stale:
        faults.append(f"{path} has other figures than the samples (it lacks {stale[0]!r}); run the prepare stage "
                      "again.")
    if not sheet.is_file():
        faults.append(f"{sheet} does not exist; run the prepare stage again.")
    return faults


def _is_stated(what: str, lines: list[str]) -> bool:
    """Whether a card's lines name its source or its licence."""
    mark = f"- {what}:"
    return any(line.startswith(mark) and line.removeprefix(mark).strip() for line in lines)


def summary(dataset_dir: Path, name: str) -> str:
    """One line: how many samples of how many images, by split, how many are empty, and leaks, or why there are none.

    Raises:
        UserError: the dataset cannot be read.
    """
    reason = not_run_reason(dataset_dir)
    if reason:
        return f"{name}: not run: {reason}"
    tally = _Tally(read_samples(dataset_dir))
    splits = ", ".join(f"{split} {count}" for split, count in _counts(tally.splits))
    parts = [f"{name}: {len(tally.areas)} samples of {len(tally.sizes)} images ({splits})"]
    if tally.empty:
        parts.append(f"{tally.empty} masks are empty")
    parts += [sentence.removesuffix(".") for sentence in read_facts(dataset_dir).leaks()]
    return "; ".join(parts)


class _Tally:
    """What the samples of a dataset add up to; the samples themselves are not held.

    Attributes:
        areas: for each sample its share of the image.
        sizes: image -> (width, height), in stored order.
        groups: the different ones.
        counts: (target, split) -> how many samples.
        image_splits: the different (image, split).
        levels: prompt level -> what its prompts add up to.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.areas = array("d")
        self.sizes: dict[str, tuple[int, int]] = {}
        self.groups: set[str] = set()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.image_splits: set[tuple[str, str]] = set()
        self.levels: dict[str, _Level] = {}
        for sample in samples:
            self.areas.append(sample.area_fraction)
            self.sizes[sample.image] = (sample.width, sample.height)
            self.groups.add(sample.group)
            self.counts[sample.target, sample.split] += 1
            self.image_splits.add((sample.image, sample.split))
            for level, texts in sample.prompts.items():
                self.levels.setdefault(level, _Level(texts[0])).add(texts)

    @property
    def empty(self) -> int:
        """How many masks are empty."""
        return self.areas.count(0)

    @property
    def targets(self) -> Counter[str]:
        """Target -> how many samples."""
        return _sums((target, n) for (target, _), n in self.counts.items())

    @property
    def splits(self) -> Counter[str]:
        """Split -> how many samples."""
        return _sums((split, n) for (_, split), n in self.counts.items())


class _Level:
    """What the prompts of one level add up to; the texts themselves are not held.

    Attributes:
        example: the first prompt.
        samples: how many samples have the level.
    """

    def __init__(self, example: str) -> None:
        self.example = example
        self.samples = 0
        self._hashes = array("q")

    def add(self, texts: list[str]) -> None:
        """Count one sample's prompts in."""
        self.samples += 1
        self._hashes.extend(map(hash, texts))

    @property
    def different(self) -> int:
        """How many different texts there are."""
        return len(np.unique(self._hashes))


def _text(tally: _Tally, facts: Facts, about: About, lengths: str) -> str:
    origin = [f"Source: {markdown_text(about.source)}", f"Licence: {markdown_text(about.licence)}"]
    if about.citation:
        origin.append(f"Citation: {markdown_text(about.citation)}")
    notes = ["## Notes", "", *_listed(about.notes), ""] if about.notes else []
    return "\n".join([
        f"# {markdown_text(about.title)}", "",
        *_bulleted(origin), *_bulleted(_figures(tally)), *_listed(facts.sentences()), "",
        "## Samples", "", *_sample_table(tally), "",
        *notes,
        "## Prompts", "", *_prompt_table(tally.levels), "", lengths, "",
        f"![Examples: outlines of the masks, each with its prompt]({SHEET})", "",
    ])


def _bulleted(lines: Iterable[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def _listed(sentences: Iterable[str]) -> list[str]:
    """Plain text as a list in Markdown."""
    return _bulleted(map(markdown_text, sentences))


def _figures(tally: _Tally) -> list[str]:
    """Images, groups and masks in a line each."""
    sizes = Counter(tally.sizes.values())
    areas = sorted(tally.areas)
    common = ", ".join(f"{_size(size)} ({count})" for size, count in sizes.most_common(3))
    return [
        f"Images: {sum(sizes.values())}, the narrowest {_size(min(sizes))}, the widest {_size(max(sizes))} "
        f"pixels; most common {common}",
        f"Groups (patients where known, else images): {len(tally.groups)}",
        f"Masks: {len(areas)}, {tally.empty} of them empty; median share of the image "
        f"{areas[len(areas) // 2]:.1%}",
    ]


def _sample_table(tally: _Tally) -> list[str]:
    """Samples by target and split, and images by split."""
    splits = [split for split, _ in _counts(tally.splits)]
    targets = _counts(tally.targets)
    rows = []
    for target, count in targets[:_MOST]:
        of_target = Counter({split: tally.counts[target, split] for split in splits})
        rows.append(_counted(target, of_target, splits, count))
    if len(targets) > _MOST:
        named = dict(targets[:_MOST])
        rest = _sums((split, count) for (target, split), count in tally.counts.items() if target not in named)
        rows.append(_counted(f"{len(targets) - _MOST} more", rest, splits, rest.total()))
    by_image = Counter(split for _, split in tally.image_splits)
    rows.append(_counted("(images)", by_image, splits, len(tally.sizes)))
    return _table(["target", *splits, "all"], rows)


def _counted(title: str, counts: Counter[str], splits: list[str], total: int) -> list[str]:
    """A line of the samples' table."""
    return [title, *(str(counts[split]) for split in splits), str(total)]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _prompt_table(levels: dict[str, _Level]) -> list[str]:
    """For each level how many samples have it, how many texts there are, and the first one."""
    rows = []
    for level in (*LEVELS, UNIQUE):
        if level in levels:
            tally = levels[level]
            rows.append([level, str(tally.samples), str(tally.different), tally.example[:200] or "(empty)"])
    return _table(["level", "samples", "different texts", "example"], rows)


def _token_lengths(samples: Iterable[Sample]) -> str:
    """One line: how long the different prompts are in CLIP's tokens, and how many are longer than models read; of a
    prompt the first `_TOKENISED` letters are counted."""
    from featherseg.models.towers.tokenizer import WORD_LENGTHS, clip_token_ids

    seen: set[int] = set()
    lengths = array("l")
    for sample in samples:
        prompts = dict.fromkeys(itertools.chain.from_iterable(sample.prompts.values()))
        texts = [text for text in prompts if hash(text) not in seen]
        seen.update(map(hash, texts))
        lengths.extend(map(len, clip_token_ids([text[:_TOKENISED] for text in texts])))
    counts = np.array(lengths)
    longer = ", ".join(f"{np.count_nonzero(counts > length)} more than {length}" for length in WORD_LENGTHS)
    most = np.quantile(counts, 0.95, method="higher")
    return (f"Lengths in CLIP's tokens, start and end included: median {np.median(counts):.0f}, 95 % at most {most}; "
            f"of {len(counts)} different prompts {longer}. A model cuts what is longer than it reads: CLIPSeg "
            f"{WORD_LENGTHS[-1]}, ETRIS, CRIS and DETRIS their word_length.")


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    header, *rows = [list(map(markdown_text, line)) for line in (header, *rows)]
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)]


def _sums(pairs: Iterable[tuple[str, int]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for name, number in pairs:
        sums[name] += number
    return sums


def _counts(names: Counter[str]) -> list[tuple[str, int]]:
    """Names with their counts, train, val and test first, then by count."""
    first = {"train": 0, "val": 1, "test": 2}
    return sorted(names.items(), key=lambda item: (first.get(item[0], 3), -item[1], item[0]))


def _contact_sheet(dataset: PreparedDataset) -> Image.Image:
    """The images of a dataset side by side, each target outlined in the colour of its prompt."""
    by_image: dict[str, list[Sample]] = {}
    for sample in dataset.samples:
        by_image.setdefault(sample.image, []).append(sample)
    tiles = [_tile(dataset, samples[:len(_COLOURS)]) for samples in by_image.values()]
    width = _SIDE + _MARGIN
    height = max(tile.height for tile in tiles) + _MARGIN
    columns = min(_COLUMNS, len(tiles))
    bottom = math.ceil(len(tiles) / columns) * height + _MARGIN
    note = "" if all(map(_is_drawable, dataset.samples)) else NOTE
    below = _LINE + _MARGIN if note else 0
    sheet = Image.new("RGB", (columns * width + _MARGIN, bottom + below), "white")
    Lettering(_FONT_SIZE).draw(ImageDraw.Draw(sheet), (_MARGIN, bottom), note, "#666666")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(tile, (_MARGIN + column * width, _MARGIN + row * height))
    return sheet


def _is_drawable(sample: Sample) -> bool:
    """Whether there are letters for all that a tile says of a sample."""
    return is_drawable(sample.image_id) and is_drawable(_shown_prompt(sample))


def _tile(dataset: PreparedDataset, samples: list[Sample]) -> Image.Image:
    image = Image.fromarray(dataset.image(samples[0]))
    scale = _SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    size = width, height
    pixels = np.array(image.resize(size, Image.Resampling.LANCZOS))
    font = Lettering(_FONT_SIZE)
    captions: list[tuple[str, str]] = []
    for sample, colour in zip(samples, _COLOURS, strict=False):
        full = Image.fromarray(dataset.mask(sample).astype(np.uint8) * 255)
        mask = np.asarray(full.resize(size, Image.Resampling.BILINEAR)) > 127
        pixels[_border(~mask, 1)] = 255
        pixels[_border(mask, 2)] = tuple(bytes.fromhex(colour[1:]))
        captions += _caption(sample, colour, font)
    tile = Image.new("RGB", (_SIDE, _SIDE + _LINE * (len(captions) + 1)), "white")
    tile.paste(Image.fromarray(pixels), ((_SIDE - size[0]) // 2, (_SIDE - size[1]) // 2))
    draw = ImageDraw.Draw(tile)
    font.draw(draw, (0, _SIDE), f"{samples[0].split}: {samples[0].image_id}", "#666666")
    for number, (text, colour) in enumerate(captions, start=1):
        font.draw(draw, (0, _SIDE + number * _LINE), text, colour)
    return tile


def _border(mask: np.ndarray, width: int) -> np.ndarray:
    """Inner border of a mask, `width` pixels wide, not along the image's own border: bool (H, W)."""
    core = mask
    for _ in range(width):
        padded = np.pad(core, 1, mode="edge")
        core = core & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~core


def _shown_prompt(sample: Sample) -> str:
    """The prompt of a sample that the sheet shows, as much of it as two lines can hold."""
    level = next((level for level in (UNIQUE, "sentences") if level in sample.prompts), "p6")
    return prompt_of(sample, level)[:_LETTERS]


def _pieces(word: str, font: Lettering) -> list[str]:
    """A word in parts that fit the tile: scripts without spaces are broken anywhere."""
    pieces = [""]
    for letter in word:
        if font.length(pieces[-1] + letter) > _SIDE:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def _caption(sample: Sample, colour: str, font: Lettering) -> list[tuple[str, str]]:
    """A sample's prompt in at most two lines that fit the tile, letters without a font as code points."""
    words = (drawable(_shown_prompt(sample)) or "(empty prompt)").split()
    if sample.area_fraction == 0:
        words.append("(empty mask)")
    lines = [""]
    for word in itertools.chain.from_iterable(_pieces(word, font) for word in words):
        longer = f"{lines[-1]} {word}".strip()
        if font.length(longer) <= _SIDE or not lines[-1]:
            lines[-1] = longer
        elif len(lines) == 2:
            while font.length(f"{lines[-1]} …") > _SIDE and " " in lines[-1]:
                lines[-1] = lines[-1].rpartition(" ")[0]
            lines[-1] += " …"
            break
        else:
            lines.append(word)
    return [(line, colour) for line in lines]
