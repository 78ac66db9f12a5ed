"""Evidence, computed on the spot, for how released code steers a training: what the schedule waits for, which epoch is
kept, what trains at which rate, which samples are left out, and which prompts are asked.

As in `audit.py`, each verdict is read off its measurement.
"""

from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.optim import lr_scheduler

from featherseg import adapters
from featherseg.describe import without_weights
from featherseg.engine import POSITIONS, is_best, make_optimizer, make_schedule, tower_parameters
from featherseg.models.base import SegmentationModel
from featherseg.papers.medvlsm.audit_scores import prompt_levels
from featherseg.reporting import tables
from featherseg.reporting.audit import shown
from featherseg.tasks.objective import trained_per_epoch
from featherseg.tasks.segmentation.config import Plateau, SegmentationTrain, Selection
from featherseg.tasks.segmentation.objective import choice_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

WATCHED: dict[Plateau, str] = {"dsc": "featherseg: a better DSC", "published_loss": "released: a lower loss"}
KEPT: dict[Selection, str] = {
    "dsc": "featherseg: DSC at the input's size, the first of equals",
    "published_iou": "released: mean IoU at original size, the last of equals"}
LOGIT_SCALE = "logit_scale"


def steering() -> list:
    """The plateau, the epoch that is kept, rates, counts, last batches and prompts, for a notebook, each with a
    heading, prose, a table and a verdict."""
    plateau, kept, rates = plateaus(), kept_epochs(), position_rates()
    counts, dropped, levels = counted_as_trained(), last_batches(), prompt_levels()
    return [
        *shown("The plateau: loss or DSC",
               "Both medical repositories lower the rate when the validation loss has not fallen for more than five "
               "epochs; here the schedule waits for the DSC. Twenty simulated trainings of eighty epochs, in which "
               "the DSC rises and settles while the loss, after a while, rises again; rates by the package's own "
               "schedule. A simulation, not a measurement of the papers.",
               tables.show(plateau, digits=6), plateau_verdict(plateau)),
        *shown("Which epoch is kept",
               "CRIS, ETRIS and DETRIS keep the last of the epochs whose mean IoU at original size, cut at 0.35, is "
               "best; here it is the first of those whose DSC at the input's size, cut at 0.5, is. Simulated "
               "trainings whose masks have soft edges.", tables.show(kept), kept_verdict(kept)),
        *shown("Positional embeddings at the head's rate",
               "CRIS's backbone trains at a tenth of the rate, but the parameters whose names hold "
               "`positional_embedding` are put with the head. Rates of a small CRIS in the package's own optimiser.",
               tables.show(rates, digits=6), positions_verdict(rates)),
        *shown("A parameter that is counted and never trained",
               "CLIP's `logit_scale` belongs to every group of trained parameters in the released code, and to no "
               "mask. Gradients of a small CRIS, and counts at full size.",
               tables.show(counts), count_verdict(counts)),
        *shown("The last batch",
               "The released loaders of referring segmentation drop a short last batch, another one each epoch. "
               "References of each training split.", tables.show(dropped), batches_verdict(dropped)),
        *shown("One level of prompts, or any",
               "MedVLSM trains and tests with one level of prompts at a time; a random level is drawn for all sets "
               "pooled alone. Mean DSC of one random model on the same drawn images, by level.",
               tables.show(levels), prompts_verdict(levels))]


def plateaus(trainings: int = 20, epochs: int = 80) -> "pd.DataFrame":
    """Rates under a plateau that waits for the DSC or for the loss, in the same simulated trainings.

    Returns:
        waits for, trainings, of which the rate fell, falls (on average), first fall (after which epoch, in the
        median), last rate (in the median), and trainings whose rates differ from the other's in some epoch.
    """
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    rates: dict[str, list] = {watched: [] for watched in WATCHED}
    for _ in range(trainings):
        learned = 1 - np.exp(-np.arange(epochs) / rng.uniform(8, 20))
        too_certain = np.clip(np.arange(epochs) / epochs - rng.uniform(0.2, 0.5), 0, None)
        dsc = 0.85 * learned + rng.normal(0, 0.01, epochs)
        loss = 1 - 0.7 * learned + rng.uniform(0.1, 0.4) * too_certain + rng.normal(0, 0.01, epochs)
        measured: dict[Plateau, np.ndarray] = {"dsc": dsc, "published_loss": loss}
        for watched, values in measured.items():
            rates[watched].append(_rates(watched, values))
    differ = sum(ours != theirs for ours, theirs in zip(*rates.values(), strict=True))
    lines = []
    for watched, label in WATCHED.items():
        falls = [np.flatnonzero(np.diff(values)) for values in rates[watched]]
        counts = [len(epochs_of_falls) for epochs_of_falls in falls]
        first = [epochs_of_falls[0] + 1 for epochs_of_falls in falls if len(epochs_of_falls)]
        last = [values[-1] for values in rates[watched]]
        lines.append({"waits for": label, "trainings": trainings, "rate fell in": np.count_nonzero(counts),
                      "falls": np.mean(counts), "first fall after epoch": np.median(first or [0]),
                      "last rate": np.median(last), "rates differ in": differ})
    return pd.DataFrame(lines)


def plateau_verdict(frame: "pd.DataFrame") -> str:
    """One sentence: in how many trainings the rates differ, and when they first fall."""
    when = "; ".join(f"{row['waits for']}: after epoch {row['first fall after epoch']:.0f}"
                     for row in frame.to_dict("records"))
    return (f"The rates differ in {frame['rates differ in'].iloc[0]} of {frame.trainings.iloc[0]} simulated trainings; "
            f"in the median they first fall ({when}). The `-published` recipes set `plateau_on: published_loss`.")


def kept_epochs(trainings: int = 200, epochs: int = 50, samples: int = 200) -> "pd.DataFrame":
    """Which epoch each rule keeps, in simulated trainings whose epochs are equally good.

    Returns:
        equal scores (how: never, or IoU rounded so that epochs tie), trainings, share in which another epoch is kept
        (%), and how many epochs later the released rule's lies on average.
    """
    import numpy as np
    import pandas as pd

    rng, lines = np.random.default_rng(0), []
    for ties, digits in (("none", 12), ("rounded to 1 point", 2)):
        kept: dict[str, list[int]] = {rule: [] for rule in KEPT}
        for _ in range(trainings):
            iou = np.clip(0.6 + rng.normal(0, 0.15, (epochs, samples)), 0, 1)
            # a lower cut makes masks larger, by a different amount for each sample
            dsc = 2 * iou / (1 + iou) + rng.normal(0, 0.05, iou.shape)
            scores = {"published_iou": iou.mean(axis=1).round(digits), "dsc": dsc.mean(axis=1).round(digits)}
            for rule in KEPT:
                kept[rule].append(_kept(scores[rule].tolist(), rule))
        apart = np.array(kept["published_iou"]) - np.array(kept["dsc"])
        lines.append({"equal scores": ties, "trainings": trainings, "another epoch": 100 * (apart != 0).mean(),
                      "epochs later": apart.mean()})
    return pd.DataFrame(lines)


def kept_verdict(frame: "pd.DataFrame") -> str:
    """One sentence per case: how often another epoch is kept, and how much later."""
    facts = [f"equal scores {row['equal scores']}: another epoch in {row['another epoch']:.0f} % of the trainings, "
             f"{row['epochs later']:+.1f} epochs on average" for row in frame.to_dict("records")]
    return f"{'; '.join(facts)}. The `-published` recipes set `selection: published_iou`."


def position_rates() -> "pd.DataFrame":
    """Rates of CRIS's parts under each value of `tower_positions`.

    Returns:
        tower_positions, part (positional embeddings, other towers, head), tensors, rate.
    """
    import pandas as pd

    model, lines = adapters.apply(small_cris(), {"name": "full"}), []
    learned = adapters.trainable(model)
    for where in ("tower_rate", "published_full_rate"):
        config = SegmentationTrain(lr=1e-4, tower_lr_factor=0.1, tower_positions=where)
        optimizer = make_optimizer(config, list(learned.values()), tower_parameters(model, config))
        rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
        for part, names in _parts(learned).items():
            (rate,) = {rates[id(learned[name])] for name in names}
            lines.append({"tower_positions": where, "part": part, "tensors": len(names), "rate": rate})
    return pd.DataFrame(lines)


def positions_verdict(frame: "pd.DataFrame") -> str:
    """One sentence per value: how the positional embeddings' rate compares with the towers' other parameters'."""
    rates = frame.set_index(["tower_positions", "part"]).rate
    facts = [f"`{where}`: positional embeddings train at "
             f"{rates[where, 'positional embeddings'] / rates[where, 'other parameters of the towers']:.0f} x the rate "
             "of the towers' other parameters" for where in dict.fromkeys(frame.tower_positions)]
    return f"{'; '.join(facts)}."


def counted_as_trained() -> "pd.DataFrame":
    """What the released code counts as trained in CRIS, and what is.

    Returns:
        what (parameters at full size), released code's count, trained here, and the gradient's norm that
        `logit_scale` gets in a small model (NaN: none at all).
    """
    import pandas as pd

    model = adapters.apply(small_cris(), {"name": "full"}).requires_grad_(True)
    tokens = model.tokenize(["a red circle", "the left one"])
    model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), tokens).square().mean().backward()
    (gradient,) = [p.grad for name, p in model.named_parameters() if name.endswith(LOGIT_SCALE)]
    whole = without_weights("cris-full-referring-published")
    counted = sum(p.numel() for p in whole.parameters())
    trained = sum(p.numel() for p in whole.parameters() if p.requires_grad)
    return pd.DataFrame([{"model": "CRIS on CLIP RN50", "released code's count": counted, "trained here": trained,
                          "gradient of logit_scale": float("nan") if gradient is None else float(gradient.norm())}])


def count_verdict(frame: "pd.DataFrame") -> str:
    """One sentence: by how many the counts differ, and whether `logit_scale` gets a gradient."""
    row = frame.iloc[0]
    gradient, counted = row["gradient of logit_scale"], row["released code's count"]
    reached = "NO gradient" if gradient != gradient else f"a gradient of norm {gradient:.2g}"
    return (f"`logit_scale` gets {reached}, so that {row['trained here']:,} of {counted:,} "
            "parameters train; the released code counts all of them.")


def last_batches() -> "pd.DataFrame":
    """References of each training split that an epoch leaves out where a short last batch is dropped.

    Returns:
        dataset, references, batch, left out (in an epoch), share (%).
    """
    import pandas as pd

    from featherseg.data.raw.spec import ReferringSpec
    from featherseg.data.raw.specs import SPECS

    lines = []
    for name in SPECS:
        spec = SPECS[name]
        if isinstance(spec, ReferringSpec):
            samples = spec.sizes["train"]
            for batch in (32, 64):
                config = SegmentationTrain(batch_size=batch, last_batch="published_dropped")
                left_out = samples - trained_per_epoch(samples, config)
                lines.append({"dataset": name, "references": samples, "batch": batch, "left out": left_out,
                              "share": 100 * left_out / samples})
    return pd.DataFrame(lines)


def batches_verdict(frame: "pd.DataFrame") -> str:
    """One sentence: how many references an epoch leaves out at most."""
    most = frame.loc[frame["left out"].idxmax()]
    return (f"An epoch leaves out up to {most['left out']} references ({most.share:.2f} %, {most.dataset} with batches "
            f"of {most.batch}). The `-published` recipes set `last_batch: published_dropped`.")


def prompts_verdict(frame: "pd.DataFrame") -> str:
    """One sentence: how far the levels' scores lie apart, and where random ones lie."""
    levels = frame[frame.prompts != "random"].set_index("prompts").DSC
    drawn = frame.set_index("prompts").DSC["random"]
    return (f"By the level alone the score of one model moves by {levels.max() - levels.min():.1f} points "
            f"({levels.idxmin()} to {levels.idxmax()}); random levels give {drawn:.1f} %. MedVLSM's four `-published` "
            "recipes set one level, and `random` for all sets pooled.")


def small_cris() -> SegmentationModel:
    """A random small CRIS, always the same."""
    from featherseg.models.cris.config import small_config
    from featherseg.models.cris.model import CRIS

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CRIS("cris", small_config(), 64).eval()


def _parts(learned: dict[str, nn.Parameter]) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {"positional embeddings": [], "other parameters of the towers": [], "head": []}
    for name in learned:
        part = "head" if not name.startswith("net.backbone") else (
            "positional embeddings" if POSITIONS in name else "other parameters of the towers")
        parts[part].append(name)
    return parts


def _rates(watched: Plateau, values: "np.ndarray") -> list[float]:
    """The rate of each epoch, by VLSM-Adapter's settings of the plateau."""
    config = SegmentationTrain(schedule="plateau", factor=0.3, patience=5, plateau_on=watched)
    optimizer = make_optimizer(config, [nn.Parameter(torch.zeros(1))])
    schedule = cast(lr_scheduler.ReduceLROnPlateau, make_schedule(config, optimizer, choice_of(config).plateau_mode))
    rates = []
    for value in values:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step(value)
    return rates


def _kept(scores: list[float], rule: Selection) -> int:
    config, kept = SegmentationTrain(selection=rule), 0
    for epoch, score in enumerate(scores):
        kept = epoch if is_best(score, scores[:epoch], choice_of(config).keeps) else kept
    return kept
