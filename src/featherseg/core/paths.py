"""Where things lie in a project, relative to its root, which is the working directory of every command."""

from pathlib import Path

RAW = Path("data/raw")
INBOX = Path("data/inbox")  # where a user puts an archive that needs an account
CHECKSUMS = Path("data/checksums.json")
PROCESSED = Path("data/processed")
WEIGHTS = Path("data/weights")
RUNS = Path("runs")
REPORTS = Path("reports")
NOTEBOOKS = Path("notebooks")
CODE = RUNS / "code"  # of every recipe's runs, for DVC


def processed(dataset: str) -> Path:
    """A prepared dataset."""
    return PROCESSED / dataset


def plans(study: str) -> Path:
    """A study's resolved runs, two files each."""
    return RUNS / study / "plan"


def trained(study: str, run: str) -> Path:
    """What a run's training leaves: checkpoint, history, status."""
    return RUNS / study / "train" / run


def info(study: str, run: str) -> Path:
    """When, where and how fast a run was trained."""
    return RUNS / study / "info" / f"{run}.json"


def evaluated(study: str, run: str) -> Path:
    """A run's scores and records."""
    return RUNS / study / "evaluate" / run


def reports(study: str) -> Path:
    """A study's tables and pages."""
    return REPORTS / study


def verification(study: str) -> Path:
    """The page of a study's results beside the committed ones, which git and DVC ignore."""
    return reports(study) / "verify.html"


def pictures(notebook: Path) -> Path:
    """The pictures of an executed notebook that stay out of its page, in a folder beside it."""
    return notebook.parent / "pictures" / notebook.stem
