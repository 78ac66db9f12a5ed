"""Predictions to look at: the same images for every recipe, from the stored masks."""

from featherseg.core.paths import processed
from featherseg.data.prepared import PreparedDataset
from featherseg.reporting import pictures, style
from featherseg.reporting.overlays import grid, predictions
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
    """The same images for every recipe that was scored on a dataset, from its first seed, as `overlays.grid` shows
    them."""
    scored = study.results[(study.results.dataset == dataset) & (study.results.status == "ok")]
    first = scored.sort_values("seed", kind="stable").drop_duplicates("recipe").set_index("recipe").run
    runs = first.reindex(scored.recipe.unique())
    short = style.short_names(study.title(recipe) for recipe in runs.index)
    names = {recipe: short[study.title(recipe)] for recipe in runs.index}
    by_method = {recipe: predictions(study, run) for recipe, run in runs.items()}
    data = PreparedDataset.read(processed(dataset))
    shown = []
    for place, figure in enumerate(grid(data, by_method, names)):
        shown += pictures.shown(figure, study, dataset, f"predictions{place or ''}")
    return shown
