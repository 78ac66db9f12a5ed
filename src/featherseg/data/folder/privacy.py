"""Own pictures, which may be patients', stay out of git."""

import re
import sys
from pathlib import Path

from featherseg.config import DataParams
from featherseg.core.provenance import git


def is_public(dataset: str, data: DataParams) -> bool:
    """Whether the pictures of a dataset may be published: those of synthetic and official sets, of folders declared as
    `public`, and of pools of nothing else. A name that is not declared may be that of a folder once declared.
    """
    members = data.pooled[dataset].members if dataset in data.pooled else [dataset]
    declared = {*data.synthetic, *data.official, *data.bundled, *data.referring, *data.as_published}
    public = declared | {name for name, own in data.folders.items() if own.public}
    return public.issuperset(members)


def keep_out_of_git(folder: Path) -> None:
    """Have git ignore a folder of the checkout, and print that; or print that git tracks it already.

    The pattern goes into `.git/info/exclude`, which belongs to the clone and not to the project.
    """
    folder, shown = folder.resolve(), git("rev-parse", "--show-toplevel")
    top = Path(shown).resolve() if shown else folder
    if top not in folder.parents or not folder.is_dir():
        return
    if git("ls-files", "--", str(folder)):
        print(f"note: git tracks {folder}; where its pictures may not be published: git rm -r --cached {folder}",
              file=sys.stderr)
    elif git("check-ignore", "--quiet", str(folder)) is None:
        pattern = re.sub(r"([*?\[\\])", r"\\\1", folder.relative_to(top).as_posix())
        exclude = Path(git("rev-parse", "--git-path", "info/exclude") or ".git/info/exclude")
        try:
            exclude.parent.mkdir(parents=True, exist_ok=True)
            with open(exclude, "a", encoding="utf-8") as file:
                file.write(f"\n/{pattern}/\n")
        except OSError as error:  # the repository may be mounted to be read only
            print(f"note: git does not ignore {folder} ({exclude}: {error.strerror}); do not commit its pictures where "
                  "they may not be published", file=sys.stderr)
            return
        print(f"note: git ignores {folder} from now on (.git/info/exclude)", file=sys.stderr)
