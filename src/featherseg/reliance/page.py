"""The page of one model that the reliance suite has examined."""

import base64
import io
from typing import TYPE_CHECKING

import pandas as pd
from markupsafe import Markup

from featherseg.data.prepared import PreparedDataset
from featherseg.reliance import figures, tables
from featherseg.reliance.record import Record
from featherseg.reliance.scores import NEAR_ZERO
from featherseg.reliance.statistics import FEWEST
from featherseg.reliance.verdict import LEAST_DROP, LEVEL, gains, remarks, title, verdict, wrong_controls
from featherseg.reporting import style
from featherseg.reporting.page import render
from featherseg.reporting.tables import show

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def report(record: Record, trials: pd.DataFrame, dataset: PreparedDataset) -> str:
    """The page of one model: the answer, the table behind it, figures, overlays, controls, and how it was made."""
    compared = tables.with_controls(record)
    matrices = figures.following({record["model"]: record, "control: text-blind": record["controls"]["text-blind"]})
    overlays = [_embedded(style.picture(figure).data, "jpeg") for figure in figures.same_image(trials, dataset)]
    return render(
        "reliance/page.html", title=f"Reliance of {record['model']}", summary=record["paragraph"], record=record,
        headline=headline(record), unfit=_unfit(record), conventions=_conventions(record),
        effects=_table(tables.effects(record), "effects"),
        comparison=_table(tables.comparison(compared), "comparison"),
        exchanges=_png(figures.exchanges(compared)), changes=_png(figures.changes({"": record})),
        shares=_png(figures.shares(compared)),
        matrices=_png(matrices) if matrices else "", overlays=overlays)


def headline(record: Record) -> str:
    """The model's name and what decides its masks, and whether it does better with another prompt than its own."""
    better = gains(record)
    but = f"; it does better with {title(better[0]['condition'])}" if better else ""
    return f"{record['model']}: {tables.HEADLINES[verdict(record)]}{but}"


def _unfit(record: Record) -> list[str]:
    """Which controls show that these data cannot tell, one sentence each."""
    wrong = wrong_controls(record["controls"])
    return [f"{name} must come out as “{right}”, but comes out as “{answer}”: no verdict is drawn from these data."
            for name, (answer, right) in wrong.items()]


def _conventions(record: Record) -> list[str]:
    """How the numbers were made, one sentence or more each."""
    return [
        f"{record['n_samples']} structures in {record['n_images']} images of {record['n_groups']} groups (patients, or "
        f"images where those are not known); {record['n_empty_truth']} true masks are empty.",
        f"Own prompts are those of level “{record['prompts']}”; a pixel belongs to the mask above "
        f"{record['threshold']}.",
        "Masks are compared at the image's own resolution. Two empty masks agree (DSC 100), one alone scores 0.",
        f"Intervals: bootstrap of {record['draws']} draws over groups. Tests: random signs of groups, two-sided, "
        "corrected by Holm's procedure among the five exchanges behind the answer (prompts permuted, another "
        "structure's prompt; images permuted, blurred, or replaced by their mean colour), and among all others; what "
        "asks for the same prompts as another line is counted once. Effect d: mean over deviation of the groups' "
        "changes; rank-biserial: of the samples' changes, 1 where all rise, -1 where all fall; a dash where they do "
        "not vary.",
        f"A modality decides where one of its exchanges costs at least {100 * LEAST_DROP:.0f} points of DSC with p "
        f"below {LEVEL}; where the empty prompt costs less than half of what a foreign one costs, prompts are said to "
        "mislead, not to decide, unless a swapped prompt takes the mask to another structure significantly more "
        f"often than at random. With fewer than {FEWEST} groups nothing is decided, and a mean has no interval. "
        f"Shares are given where the gain is at least {100 * NEAR_ZERO:.0f} points and significantly above zero. "
        "Where a control does not come out as it must, these data cannot tell, and there is no verdict.",
        "n counts samples (structures of images), “not measured” those that an intervention does not fit (no colour "
        "in the prompt, no second structure, a change that the model does not read). “Same prompt”, “cut prompt” and "
        "“empty masks” count masks: those of samples that kept their own prompt because all share it, or by chance; "
        "those whose prompt is longer than the model reads; and those without a pixel; where an image has further "
        "structures, each of their prompts gives a sample a mask, and their mean counts.",
        "“Mask changed” is 1 minus the IoU between the masks with and without the change, which needs no truth.",
        *remarks(record),
        f"Everything drawn follows from seed {record['seed']}. reliance.parquet holds every trial with its prompt."]


def _table(frame: pd.DataFrame, name: str) -> Markup:
    """A table under a name of its own, where pandas would draw one, so that equal records give equal pages."""
    return Markup(show(frame, digits=1).to_html(table_uuid=name))


def _png(figure: "Figure") -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return _embedded(buffer.getvalue(), "png")


def _embedded(picture: bytes, kind: str) -> str:
    """A picture as the address of an image that is inside its page."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
