"""What a segmentation run minimises, and how it is validated."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from featherseg.config import Run
from featherseg.core.device import to_device
from featherseg.core.errors import UserError
from featherseg.core.seeds import rng_of
from featherseg.data.prepared import PreparedDataset, Sample, prompt_of
from featherseg.models.base import SegmentationModel
from featherseg.tasks.objective import Choice, Objective, parts, shuffled, trained_per_epoch
from featherseg.tasks.segmentation.config import LossConfig, SegmentationTrain, training_of
from featherseg.tasks.segmentation.features import FeatureBank, Fetched
from featherseg.tasks.segmentation.losses import per_sample_dice, per_sample_loss
from featherseg.tasks.segmentation.metrics import iou
from featherseg.tasks.segmentation.pixels import PixelDataset


@dataclass(frozen=True)
class Example:
    """One sample, by its index in the dataset, and the prompt with which it is asked for."""

    index: int
    prompt: str
    sample_id: str


@dataclass(frozen=True)
class FetchedExamples:
    """A batch on the model's device: what its two towers need, and its masks (B, 1, H, W) at input size."""

    image: Fetched
    text: Fetched
    targets: Tensor


class SegmentationObjective(Objective[Example]):
    """Masks of samples, each asked for with a prompt that its policy draws.

    Args:
        run: the run.
        model: its model, on the device where it is trained.
        dataset: where the samples of training and validation are.

    Raises:
        UserError: a split is empty, or `train.share` leaves no image.
    """

    def __init__(self, run: Run, model: SegmentationModel, dataset: PreparedDataset) -> None:
        super().__init__()
        self.run, self.settings, self.model = run, training_of(run), model
        self.device = next(model.parameters()).device
        self.choice = choice_of(self.settings)
        self.samples, self.train_set = dataset.samples, trained_on(dataset, self.settings.share, run.seed)
        self.pixels = PixelDataset(dataset, model.resize)
        self.held_out = [self._validated(index) for index in members(dataset, self.settings.val_split)]
        indices = [*self.train_set, *(asked.index for asked in self.held_out)]
        rows = [self.pixels.image_rows[index] for index in indices]
        texts = {asked.prompt for asked in self.held_out}
        for index in self.train_set:
            texts.update(_texts(self.samples[index]))
        self.bank = FeatureBank(model, self.pixels, rows, texts, self.settings.cache_features)
        self.names = validation_scores(self.settings)

    def facts(self) -> dict[str, int]:
        """How many images there are to train on, `training_images`."""
        return {"training_images": len({self.samples[index].image for index in self.train_set})}

    def per_epoch(self, size: int) -> int:
        """How many samples an epoch trains on."""
        return trained_per_epoch(len(self.train_set), self.settings)

    def batches(self, epoch: int, size: int) -> Iterator[list[Example]]:
        """The training samples in the order of an epoch, with prompts drawn for it.

        Raises:
            UserError: there is no whole batch, and a short last one is dropped.
        """
        order = shuffled(self.train_set, self.run.seed, epoch)
        trained = self.per_epoch(size)
        if not trained:
            raise UserError(f"{self.run.name}: {len(order)} training samples are less than one batch of "
                            f"{size}, and train.last_batch drops it; lower train.batch_size, or set "
                            "train.last_batch: kept.")
        for indices in parts(order[:trained], size):
            yield [self._trained(index, epoch) for index in indices]

    def fetch(self, batch: Sequence[Example]) -> FetchedExamples:
        """A batch's images, prompts and masks on the model's device."""
        return FetchedExamples(*self._asked(batch), self._targets(batch))

    def forward(self, fetched: FetchedExamples) -> Tensor:
        """Losses (B,), on the grid that the loss config names."""
        logits = self.model.decode(*self.bank.encode(fetched.image, fetched.text))
        return mask_losses(self.model, logits, fetched.targets, self.settings.loss)

    def logits(self, batch: Sequence[Example]) -> Tensor:
        """Logits (B, h, w) on the head's own grid."""
        return self.model.decode(*self.bank.encode(*self._asked(batch)))

    @torch.no_grad()
    def measure(self, batch: Sequence[Example]) -> Tensor:
        """Scores (len(self.names), B), float64; NaN where a logit is not finite.

        `val_dsc` at input size and `val_iou` at original size, both of what is above the probability
        `val_threshold`; `val_loss` is the training loss.
        """
        logits = self.logits(batch)
        at_input = self.model.to_input(logits)
        measures = {"val_loss": self._loss, "val_dsc": self._dsc, "val_iou": self._iou}
        scores = torch.stack([measures[name](batch, logits, at_input).double() for name in self.names])
        return scores.masked_fill(~at_input.isfinite().all(dim=(1, 2, 3)), math.nan)

    def scores(self, sums: Sequence[float]) -> dict[str, float]:
        """Means over the validation samples."""
        return {name: total / len(self.held_out) for name, total in zip(self.names, sums, strict=True)}

    def _loss(self, batch: Sequence[Example], logits: Tensor, at_input: Tensor) -> Tensor:
        return mask_losses(self.model, logits, self._targets(batch), self.settings.loss)

    def _dsc(self, batch: Sequence[Example], logits: Tensor, at_input: Tensor) -> Tensor:
        threshold = self.settings.val_threshold
        masks = self.pixels.masks([asked.index for asked in batch])
        return per_sample_dice(at_input > math.log(threshold / (1 - threshold)), masks.to(logits.device))

    def _iou(self, batch: Sequence[Example], logits: Tensor, at_input: Tensor) -> Tensor:
        samples = [self.samples[asked.index] for asked in batch]
        maps = self.model.original_resolution(logits, [(sample.height, sample.width) for sample in samples])
        values = [iou(probabilities > self.settings.val_threshold, self.pixels.original_mask(asked.index))
                  for probabilities, asked in zip(maps, batch, strict=True)]
        return torch.tensor(values, device=logits.device)

    def _asked(self, batch: Sequence[Example]) -> tuple[Fetched, Fetched]:
        """A batch's images and prompts on the model's device."""
        rows = [self.pixels.image_rows[asked.index] for asked in batch]
        return self.bank.fetch(rows, [asked.prompt for asked in batch])

    def _targets(self, batch: Sequence[Example]) -> Tensor:
        """A batch's masks (B, 1, H, W) on the model's device."""
        return to_device(self.pixels.targets([asked.index for asked in batch]), self.device)

    def _trained(self, index: int, epoch: int) -> Example:
        """A sample with the prompt of an epoch, drawn from the seed, the epoch and the sample alone."""
        sample = self.samples[index]
        rng = rng_of(self.run.seed, epoch, sample.sample_id)
        return Example(index, prompt_of(sample, self.settings.prompts, rng), sample.sample_id)

    def _validated(self, index: int) -> Example:
        """A sample with its prompt of validation: of several wordings the first, as in evaluation, unless drawn."""
        sample, policy = self.samples[index], self.settings.val_prompts
        rng = rng_of(self.run.seed, "val", sample.sample_id) if policy == "random" else None
        return Example(index, prompt_of(sample, policy, rng), sample.sample_id)


def mask_losses(model: SegmentationModel, logits: Tensor, targets: Tensor, config: LossConfig) -> Tensor:
    """The loss of each sample, (B,).

    Args:
        model: knows the way from the head's grid to the input's.
        logits: (B, h, w) on the head's grid.
        targets: (B, 1, H, W) at input size, in [0, 1].
        config: the loss, and the grid on which it is computed.
    """
    targets = targets.to(logits.device)
    if config.grid == "input":
        return per_sample_loss(model.to_input(logits), targets, config)
    return per_sample_loss(logits.unsqueeze(1), shrunk(targets, logits.shape[-2:], config), config)


def shrunk(targets: Tensor, size: Sequence[int], config: LossConfig) -> Tensor:
    """Targets (B, 1, H, W) on the head's grid of this size, as `config.shrink` says."""
    mode = "nearest" if config.shrink == "published_nearest" else "nearest-exact"
    return F.interpolate(targets, size=tuple(size), mode=mode)


def validation_scores(settings: SegmentationTrain) -> tuple[str, ...]:
    """What is measured after each epoch: the DSC, and what the schedule or the choice of the epoch needs besides."""
    waits = settings.schedule == "plateau" and settings.plateau_on == "published_loss"
    loss = ("val_loss",) if waits else ()
    overlap = ("val_iou",) if settings.selection == "published_iou" else ()
    return ("val_dsc", *loss, *overlap)


def choice_of(settings: SegmentationTrain) -> Choice:
    """The best epoch by DSC, the first of equal ones, or as published by IoU, the last of equal ones; the plateau waits
    for a better DSC, or as published for a lower loss."""
    by_iou, by_loss = settings.selection == "published_iou", settings.plateau_on == "published_loss"
    return Choice(selects="val_iou" if by_iou else "val_dsc", keeps="last" if by_iou else "first",
                  plateau="val_loss" if by_loss else "val_dsc", plateau_mode="min" if by_loss else "max")


def members(dataset: PreparedDataset, split: str) -> list[int]:
    """Indices of a split's samples.

    Raises:
        UserError: the split is empty.
    """
    indices = [i for i, sample in enumerate(dataset.samples) if sample.split == split]
    if not indices:
        present = sorted({sample.split for sample in dataset.samples})
        raise UserError(f"{dataset.path} has no samples in split '{split}', which training needs; "
                        f"its splits are {', '.join(present) or '(none)'}.")
    return indices


def trained_on(dataset: PreparedDataset, share: float, seed: int) -> list[int]:
    """Indices of the training samples of a share of the training images.

    The seed orders the images and the share takes the first of them, so that those of a smaller share are among those
    of a larger one.

    Raises:
        UserError: the split is empty, or the share leaves no image.
    """
    indices = members(dataset, "train")
    images = sorted({dataset.samples[index].image for index in indices})
    rng_of(seed, "share").shuffle(images)
    chosen = set(images[: round(share * len(images))])
    if not chosen:
        raise UserError(f"train.share is {share:g}, which leaves none of the {len(images)} training images of "
                        f"{dataset.path}; raise it to {1 / len(images):.2g} or more.")
    return [index for index in indices if dataset.samples[index].image in chosen]


def _texts(sample: Sample) -> list[str]:
    """Every prompt of a sample."""
    return [text for level in sample.prompts.values() for text in level]
