"""What ran: every declared run with its origin, how it trained, and what is left on disk of others."""

from typing import TYPE_CHECKING, cast

import pandas as pd

from featherseg.core.markup import markdown_text
from featherseg.reporting import style
from featherseg.reporting.study import Study
from featherseg.reporting.style import legend, panel_title
from featherseg.reporting.tables import FROM, honest, made_here

if TYPE_CHECKING:
    from IPython.display import Markdown
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

MOST_NAMED = 6  # runs in a sentence


def table(study: Study) -> pd.DataFrame:
    """One line per run with its data, weights, hardware and commit, or the reason why it was not made."""
    epochs = study.curves.groupby("run").epoch.max()
    lines = []
    for row in study.every_task.drop_duplicates("run").itertuples():
        lines.append({"recipe": row.recipe, "dataset": row.dataset, "seed": row.seed, "epochs": epochs.get(row.run),
                      FROM: made_here(row), "data": row.data if row.status == "ok" else ""})
    return honest(pd.DataFrame(lines).astype({"epochs": "Int64"}))


def unlisted(study: Study) -> str:
    """The runs on disk that the study no longer lists; the empty string where there are none."""
    names = study.unlisted
    if not names:
        return ""
    shown = ", ".join(map(markdown_text, names[:MOST_NAMED]))
    more = ", …" if len(names) > MOST_NAMED else ""
    count = "one run" if len(names) == 1 else f"{len(names)} runs"
    return (f"Not in these tables: {count} on disk that this study's params no longer list "
            f"({shown}{more}). To show them, list their recipes, datasets and seeds again.")


def training_curves(study: Study) -> "Figure | Markdown":
    """Validation DSC in % by epoch, one panel per dataset, one line per run."""
    curves = study.curves.dropna(subset="val_dsc")
    if curves.empty:
        return style.note("No run of this study has been trained.")
    known = study.results.drop_duplicates("run").set_index("run")
    datasets = sorted(curves.dataset.unique())
    figure, axes = style.panels(len(datasets), width=4.6, height=3.3, sharey=True)
    for axis, dataset in zip(axes, datasets, strict=True):
        by_run = dict(iter(curves[curves.dataset == dataset].groupby("run")))
        for run in (run for run in known.index if run in by_run):
            curve, look = by_run[run], study.looks[known.recipe[run]]
            axis.plot(curve.epoch, 100 * curve.val_dsc, linewidth=1.6, markersize=4, label=known.title[run],
                      color=look.colour, marker=look.marker)
        axis.set(title=panel_title(known[known.dataset == dataset]), xlabel="epoch")
        cast("MaxNLocator", axis.xaxis.get_major_locator()).set_params(integer=True)
    axes[0].set_ylabel("validation DSC (%)")
    legend(figure, axes, order=known.title)
    return figure
