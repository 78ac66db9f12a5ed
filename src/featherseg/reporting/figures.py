"""The charts of the notebooks. Each draws what a table holds, and says when there is nothing to draw."""

from typing import TYPE_CHECKING

from featherseg.papers.etris import table as etris
from featherseg.reporting import published, style
from featherseg.reporting.experiments import with_experiments
from featherseg.reporting.study import Study, first_split, title_of
from featherseg.reporting.tables import FROM, own_dsc

if TYPE_CHECKING:
    from IPython.display import Markdown
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOT = {"s": 60, "zorder": 3, "edgecolor": "white", "linewidth": 0.7}


def parameters_and_dsc(study: Study) -> "Figure":
    """Trainable parameters (log scale) against DSC in %: a panel for the paper, one for each dataset here."""
    frame = own_dsc(study.results)
    datasets = sorted(frame.dataset.unique())
    figure, axes = style.panels(1 + len(datasets), width=3.7, height=3.5)
    _published_panel(axes[0])
    for axis, dataset in zip(axes[1:], datasets, strict=True):
        rows = frame[frame.dataset == dataset]
        for row in rows.itertuples():
            look = {"color": style.colour(row.adapter, row.positions), "label": row.title}
            if row.trainable_parameters:
                look["marker"] = style.marker(row.adapter)
                axis.scatter(row.trainable_parameters, row.dsc, **look, **DOT)
            else:
                axis.axhline(row.dsc, linestyle="--", linewidth=1.4, **look)
        axis.set(xscale="log", title=f"{dataset} ({rows.data.iloc[0]})", xlabel="trainable parameters")
        style.few_ticks(axis)
        axis.margins(x=0.12, y=0.15)
    _legend(figure, axes[1:])
    return figure


def position_bars(study: Study) -> "Figure | Markdown":
    """DSC in % of the dense and shallow adapters by position V, VL, VLC, one panel a dataset."""
    frame = own_dsc(study.results)
    frame = frame[frame.adapter.str.startswith("vlsm_") & ~frame.recipe.str.endswith(published.AS_RELEASED)]
    if frame.empty:
        return style.note("No dense or shallow adapter has been run in this study.")
    datasets = sorted(frame.dataset.unique())
    figure, axes = style.panels(len(datasets), width=4.6, height=3.2, sharey=True)
    for axis, dataset in zip(axes, datasets, strict=True):
        rows = frame[frame.dataset == dataset].sort_values(["adapter", "positions"])
        names = [f"{row.title}\n(dim {row.dim:.0f})" for row in rows.itertuples()]
        bars = axis.bar(names, rows.dsc, width=0.65,
                        color=[style.colour(row.adapter, row.positions) for row in rows.itertuples()])
        axis.bar_label(bars, fmt="%.1f", padding=2, fontsize=9)
        axis.set(title=f"{dataset} ({rows.data.iloc[0]})", ylim=(0, 105))
        axis.grid(axis="x", visible=False)
    axes[0].set_ylabel("DSC (%)")
    return figure


def dim_lines(study: Study) -> "Figure | Markdown":
    """DSC in % by adapter width, one panel a dataset; a note where only one width has been run.

    Widths come from this study's runs, and from the current commit and its experiments that changed nothing else.
    """
    frame = own_dsc(first_split(with_experiments(study)))
    frame = frame[frame.adapter.str.startswith("vlsm_")]
    dims = sorted(int(dim) for dim in frame.dim.unique())
    if len(dims) < 2:
        ran = f"Only dim {dims[0]}" if dims else "No dense or shallow adapter"
        return style.note(f"{ran} has been run here; for more widths: `dvc exp run -S adapter.dim=64`, or a queue "
                          "of them and then `dvc repro -s -f notebook@10_vlsm_adapter`.")
    datasets = sorted(frame.dataset.unique())
    figure, axes = style.panels(len(datasets), width=4.6, height=3.3, sharey=True)
    for axis, dataset in zip(axes, datasets, strict=True):
        rows = frame[frame.dataset == dataset]
        for _, line in rows.groupby("recipe"):
            line, first = line.sort_values("dim"), next(line.itertuples())
            axis.plot(line.dim, line.dsc, marker=style.marker(first.adapter), label=first.title,
                      color=style.colour(first.adapter, first.positions))
        axis.set(xscale="log", title=f"{dataset} ({rows.data.iloc[0]})", xlabel="adapter width (dim)")
        axis.set_xticks(dims, [str(dim) for dim in dims])
        axis.minorticks_off()
    axes[0].set_ylabel("DSC (%)")
    _legend(figure, axes)
    return figure


def language_check(study: Study) -> "Figure | Markdown":
    """DSC in % with the own prompt, an empty one and another sample's: a line a method, one panel a dataset.

    Markers far apart: the model reads its prompt. Markers on top of each other: it looks only at the image.
    """
    looks = {"other": ("another's prompt", style.OTHER, "X"), "empty": ("empty prompt", style.EMPTY, "s"),
             "own": ("own prompt", style.OWN, "o")}
    frames = {condition: own_dsc(study.results, condition) for condition in looks}
    own = frames["own"]
    if own.empty:
        return style.note("No run of this study has been scored.")
    datasets, methods = sorted(own.dataset.unique()), list(dict.fromkeys(own.title))[::-1]
    figure, axes = style.panels(len(datasets), width=4.9, height=0.9 + 0.34 * len(methods), sharey=True)
    for axis, dataset in zip(axes, datasets, strict=True):
        rows = own[own.dataset == dataset]
        spread = {condition: frame[frame.dataset == dataset].set_index("title").dsc
                  for condition, frame in frames.items()}
        for title in rows.title:
            ends = [values[title] for values in spread.values()]
            axis.plot([min(ends), max(ends)], [methods.index(title)] * 2, color="#cccccc", linewidth=3)
        for condition, (label, colour, mark) in looks.items():
            axis.scatter([spread[condition][title] for title in rows.title],
                         [methods.index(title) for title in rows.title],
                         color=colour, marker=mark, label=label, **DOT)
        axis.set(title=f"{dataset} ({rows.data.iloc[0]})", xlabel="DSC (%)", xlim=(-3, 103),
                 ylim=(-0.6, len(methods) - 0.4))
    axes[0].set_yticks(range(len(methods)), methods)
    _legend(figure, axes)
    return figure


def training_curves(study: Study) -> "Figure | Markdown":
    """Validation DSC in % by epoch, one panel a dataset, one line a run."""
    curves = study.curves
    if curves.empty:
        return style.note("No run of this study has been trained.")
    known = study.results.drop_duplicates("run").set_index("run")
    datasets = sorted(curves.dataset.unique())
    figure, axes = style.panels(len(datasets), width=4.6, height=3.3, sharey=True)
    for axis, dataset in zip(axes, datasets, strict=True):
        for run, line in curves[curves.dataset == dataset].groupby("run", sort=False):
            adapter, positions, recipe = known.loc[run, ["adapter", "positions", "recipe"]]
            axis.plot(line.epoch, 100 * line.val_dsc, linewidth=1.6, markersize=4, label=title_of(recipe),
                      color=style.colour(adapter, positions), marker=style.marker(adapter))
        data = known.data[known.dataset == dataset].iloc[0]
        axis.set(title=f"{dataset} ({data})", xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("validation DSC (%)")
    _legend(figure, axes)
    return figure


def accuracy_and_cost(study: Study) -> "Figure | Markdown":
    """Accuracy in % of ETRIS's tuning methods against trainable parameters and against peak memory: a row a dataset."""
    frame = etris.methods(etris.accuracy(study.every_result))
    if frame.empty:
        return style.note("No tuning method of ETRIS has been run in this study.")
    frame = frame.assign(memory=[etris.memory_of(study.facts(run)) for run in frame.run]).astype({"memory": float})
    frame["memory"] /= 1024
    datasets = sorted(frame.dataset.unique())
    figure, axes = style.panels(2 * len(datasets), width=4.9, height=3.4, columns=2)
    costs = {"trainable_parameters": "trainable parameters", "memory": "peak memory in training (GiB)"}
    for place, axis in enumerate(axes):
        dataset, (cost, label) = datasets[place // 2], list(costs.items())[place % 2]
        rows = frame[frame.dataset == dataset]
        for recipe, of in rows.groupby("recipe", sort=False):
            first = of.iloc[0]
            axis.scatter(of[cost].mean(), of.accuracy.mean(), label=title_of(recipe), **DOT | {"s": 90},
                         marker=style.marker(first.adapter),
                         color=style.colour(first.adapter, first.direction or first.positions))
        wide = rows[cost].max() > 10 * rows[cost].min()
        axis.set(title=f"{dataset} ({rows.data.iloc[0]}), {rows.split.iloc[0]}", xlabel=label,
                 ylabel=f"{rows.measure.iloc[0]} (%)", xscale="log" if wide else "linear")
        style.few_ticks(axis)
        if rows[cost].isna().all():
            axis.text(0.5, 0.5, "not recorded here", transform=axis.transAxes, ha="center", color="#666666")
        axis.margins(x=0.15, y=0.18)
    _legend(figure, axes)
    return figure


def ablations_and_cost(study: Study) -> "Figure | Markdown":
    """Accuracy in % of ETRIS's ablations against trainable parameters and against peak memory: a row for each model on
    each dataset, a line for each knob; the point that all knobs share is the recipe itself."""
    frame = etris.ablations(study)
    frame = frame[frame.accuracy.notna()]
    if frame.empty or frame.groupby(["dataset", "model", "knob"]).size().max() < 2:
        return style.note("No ablation of ETRIS has been run in this study: every knob has one value.")
    frame["memory"] = frame["memory (MiB)"] / 1024
    groups = list(frame.groupby(["dataset", "model"], sort=False))
    figure, axes = style.panels(2 * len(groups), width=4.9, height=3.6, columns=2)
    costs = {"trainable": "trainable parameters", "memory": "peak memory in training (GiB)"}
    for place, axis in enumerate(axes):
        ((dataset, model), rows), (cost, label) = groups[place // 2], list(costs.items())[place % 2]
        knobs, alike = rows.knob.nunique(), rows.groupby([*costs, "accuracy"], dropna=False).knob.transform("nunique")
        itself = rows[(alike == knobs) & (knobs > 1)]
        for (knob, line), (colour, mark) in zip(rows.groupby("knob", sort=False), style.SERIES, strict=False):
            known = line[line[cost].notna()].astype({cost: float}).sort_values(cost)
            axis.plot(known[cost], known.accuracy, color=colour, marker=mark, label=knob, linewidth=1, alpha=0.9,
                      linestyle="-" if knob in ("dim", "stages") else "")
            for point in known[~known.index.isin(itself.index)].to_dict("records"):
                axis.annotate(str(point["value"]), (point[cost], point["accuracy"]), xytext=(4, 4),
                              textcoords="offset points", fontsize=7.5, color=colour)
        for point in itself[itself[cost].notna()].drop_duplicates([cost, "accuracy"]).to_dict("records"):
            axis.annotate("the recipe itself", (point[cost], point["accuracy"]), xytext=(4, -9),
                          textcoords="offset points", fontsize=7.5)
        axis.set(title=f"{model}, {dataset} ({rows[FROM].iloc[0]})", xlabel=label,
                 ylabel=f"{rows.measure.iloc[0]} (%)")
        style.few_ticks(axis)
        if rows[cost].isna().all():
            axis.text(0.5, 0.5, "not recorded here", transform=axis.transAxes, ha="center", color="#666666")
        axis.margins(x=0.2, y=0.18)
    _legend(figure, axes)
    return figure


def _published_panel(axis: "Axes") -> None:
    """Table 1's means over eight sets, with the parameters that Table 1 prints."""
    looks = {"clipseg-decoder": ("decoder", ""), "clipseg-vlsm_shallow-vlc": ("vlsm_shallow", "VLC"),
             "clipseg-vlsm_dense-vl": ("vlsm_dense", "VL")}
    means, millions = published.table_1("DSC").mean(), published.published_millions()
    for method in published.TABLE_1:
        adapter, positions = looks.get(method.recipe or "", ("", ""))
        place = (1e6 * millions[method.title], means[method.title])
        axis.scatter(*place, marker=style.marker(adapter), color=style.colour(adapter, positions), **DOT)
        name, large = method.title.partition(" (")[0], millions[method.title] > 50
        axis.annotate(name, place, xytext=(-8 if large else 8, 0), textcoords="offset points", va="center",
                      ha="right" if large else "left", fontsize=8.5)
    axis.set(xscale="log", title="published: mean of eight sets", xlabel="trainable parameters",
             ylabel="DSC (%)")
    style.few_ticks(axis)
    axis.margins(x=0.18, y=0.15)


def _legend(figure: "Figure", axes: list["Axes"]) -> None:
    """One legend below the panels, each label once."""
    found = [axis.get_legend_handles_labels() for axis in axes]
    handles = {label: handle for pair in found for handle, label in zip(*pair, strict=True)}
    if handles:
        columns = min(len(handles), 6)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)
