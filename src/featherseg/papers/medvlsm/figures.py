"""MedVLSM's charts: accuracy by training regime, and by training and test set."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from featherseg.papers.medvlsm import published
from featherseg.papers.medvlsm.published import STATE_OF_THE_ART
from featherseg.papers.medvlsm.table import INDIVIDUAL, ZERO_SHOT, in_order, known_first, named, on_its_own, scores
from featherseg.reporting import style
from featherseg.reporting.study import Study
from featherseg.reporting.style import legend

if TYPE_CHECKING:
    from IPython.display import Markdown
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDOSCOPY = ("kvasir_seg", "clinicdb", "bkai")


def regime_figure(study: Study) -> "Figure":
    """DSC in % by training regime, one line per method: the paper's means, then one panel per dataset tested here."""
    here = scores(study)
    here = on_its_own(here[here.status == "ok"])
    tests, order = known_first(here.tested), in_order(here.regime)
    figure, axes = style.panels(2 + len(tests), width=max(4.3, 1 + 0.5 * len(order)), height=3.4)
    every_set = published.table_2().loc[INDIVIDUAL].index
    _published_panel(axes[0], ENDOSCOPY, "published: mean of 3 endoscopy sets")
    _published_panel(axes[1], every_set, "published: mean of 8 sets")
    for axis, tested in zip(axes[2:], tests, strict=True):
        rows = here[here.tested == tested]
        for recipe, runs in rows.groupby("recipe", sort=False):
            means = runs.groupby("regime").dsc.mean()
            means = means.reindex([regime for regime in order if regime in means])
            first = runs.iloc[0]
            look = study.looks[str(recipe)]
            axis.plot([order.index(regime) for regime in means.index], means, marker=look.marker, color=look.colour,
                      linestyle="--" if first.released else "-", alpha=0.85, label=f"{named(first)} (here)")
        slanted: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if len(order) > 3 else {}
        axis.set_xticks(range(len(order)), [_on_two_lines(regime) for regime in order], **slanted)
        axis.set(title=f"tested: {tested} ({rows.data.iloc[0]})", xlim=(-0.5, len(order) - 0.5))
    for axis in axes:
        axis.margins(x=0.12, y=0.12)
        axis.set_ylabel("DSC (%)")
    legend(figure, axes, columns=4)
    return figure


def shift_figure(study: Study) -> "Figure | Markdown":
    """Trained here, tested there: one panel per method that was tested on a dataset of which it saw no image."""
    here = scores(study)
    made = here[(here.status == "ok") & (here.regime != ZERO_SHOT)]
    tested = known_first(made.tested)
    crossed = [recipe for recipe, rows in made.groupby("recipe", sort=False)
               if (rows.trained != rows.tested).any() and rows.tested.nunique() * rows.trained.nunique() > 1]
    if not crossed:
        return style.note("No run of this study was tested on another set than it was trained on. A pooled set does "
                          "it: one of `data.pooled` in params.yaml, named in `study.datasets`.")
    trained = [name for name in dict.fromkeys([*tested, *made.trained]) if name in set(made.trained)]
    wide = max(3.2, 1.6 + 0.62 * len(tested))
    figure, axes = style.panels(len(crossed), width=wide, height=1.5 + 0.38 * len(trained),
                                columns=max(1, int(13 / wide)))
    for axis, recipe in zip(axes, crossed, strict=True):
        rows = made[made.recipe == recipe]
        grid = rows.pivot_table(index="trained", columns="tested", values="dsc").reindex(index=trained, columns=tested)
        style.heat(axis, grid, 0, 100)
        axis.set(title=f"{named(rows.iloc[0])}\n({', '.join(sorted(set(rows.data)))})", xlabel="tested on",
                 ylabel="trained on")
    return figure


def _published_panel(axis: "Axes", sets: "tuple[str, ...] | pd.Index", title: str) -> None:
    """The published means over some datasets, of the regimes that have a number for each of them."""
    values = published.table_2().drop(columns=STATE_OF_THE_ART)
    groups = values[values.index.get_level_values("dataset").isin(sets)].groupby(level="regime", sort=False)
    means = groups.mean()[groups.size() == len(sets)]
    for place, model in enumerate(means.columns):
        axis.plot([_on_two_lines(regime) for regime in means.index], means[model], marker="os^vD"[place % 5],
                  label=f"{model} (published)", color=str(0.15 + 0.12 * place), markerfacecolor="white")
    axis.set(title=title)


def _on_two_lines(regime: str) -> str:
    return regime.replace(": ", ":\n")
