"""Which commit a number is said to come from."""

import subprocess

from featherseg.core.provenance import commit


def test_what_the_pipeline_writes_is_no_change_of_the_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert commit() is None
    files = ("params.yaml", "dvc.lock", "pipelines/data/dvc.lock", "reports/index.html")
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("one")
    identity = ["-c", "user.name=A Tester", "-c", "user.email=tester@example.org"]
    for arguments in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "-m", "one"]):
        subprocess.run(["git", *arguments], check=True)
    head = commit()
    assert len(head) == 40
    for file in files[1:]:
        (tmp_path / file).write_text("two")
    assert commit() == head
    (tmp_path / "params.yaml").write_text("two")
    assert commit() == f"{head}+changes"
