"""Predictions to look at: the best, the median and the worst sample of every recipe, from the stored masks."""

from featherseg.core.paths import processed
from featherseg.data.prepared import PreparedDataset
from featherseg.reporting import pictures, style
from featherseg.reporting.overlays import draw_prediction, extremes, predictions
from featherseg.reporting.study import Study


def gallery(study: Study) -> list:
    """The overlays of every dataset on which a run was scored, each below a heading."""
    scored = study.results[study.results.status == "ok"].drop_duplicates("dataset").sort_values("dataset")
    if scored.empty:
        return [style.note("No run of this study has been scored, so there is nothing to show.")]
    shown = []
    for row in scored.itertuples():
        shown += [style.heading(f"{row.dataset} ({row.data})"), *overlays(study, row.dataset)]
    return shown


def overlays(study: Study, dataset: str) -> list:
    """Best, median and worst sample of every recipe that was scored on a dataset, from its first seed.

    Each picture has the outline of the truth and of the prediction, the DSC above and the prompt below. An empty mask
    where there is nothing is neither best nor worst, unless there is nothing else.
    """
    scored = study.results[(study.results.dataset == dataset) & (study.results.status == "ok")]
    first = scored.sort_values("seed").drop_duplicates("recipe").set_index("recipe").run
    runs = first.reindex(scored.recipe.unique())
    data = PreparedDataset.read(processed(dataset))
    samples = {sample.sample_id: sample for sample in data.samples}
    figure, axes = style.panels(3 * len(runs), width=2.75, height=3.2, columns=3)
    figure.set_layout_engine("constrained", h_pad=0.09, w_pad=0.05)
    for place, (recipe, run) in enumerate(runs.items()):
        stored = predictions(study, run)
        of_something = stored[~(stored.empty_truth & stored.empty_prediction)]
        chosen = extremes((stored if of_something.empty else of_something).dsc)
        row = axes[3 * place : 3 * place + 3]
        for spare in row[len(chosen):]:
            spare.remove()
        for axis, (rank, sample_id) in zip(row, chosen.items(), strict=False):
            draw_prediction(axis, data, samples[sample_id], stored.loc[sample_id], f"{study.title(recipe)}: {rank}, ")
    return pictures.shown(figure, study, dataset, "predictions")
