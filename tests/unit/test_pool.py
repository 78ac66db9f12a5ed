"""Pooled sets: who gives which rows, ids that clash, members that are not there, and what is refused."""

import multiprocessing
import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from featherseg.check import check_project
from featherseg.cli import main
from featherseg.config import DataParams, PoolParams, parse, read_yaml, write_yaml
from featherseg.core.errors import UserError
from featherseg.core.files import write_status
from featherseg.core.locks import exclusive, lock_of
from featherseg.data import pool as pooling
from featherseg.data.card import About, write_card
from featherseg.data.pool import pool_dataset, pool_faults
from featherseg.data.prepared import PreparedDataset, PreparedWriter
from featherseg.plan import missing, resolve_study

ROOT = Path(__file__).parents[2]
POOL = PoolParams(train=["left", "right"], test=["left", "third"])


@pytest.fixture(autouse=True)
def members(tmp_path, monkeypatch) -> Path:
    """Three prepared sets whose image names and groups are the same, of which one has no training rows."""
    monkeypatch.chdir(tmp_path)
    prepare("left", ("train", "train", "val", "test", "unnamed"))
    prepare("right", ("train", "val", "test"))
    prepare("third", ("test", "testA"))
    return tmp_path / "data/processed"


def prepare(name: str, splits: tuple[str, ...], place: str | None = None) -> None:
    rng = np.random.default_rng(len(name))
    card = partial(write_card, about=About(name, "drawn for a test", "none"))
    with PreparedWriter(Path("data/processed") / (place or name), dataset=name, finish=card) as writer:
        for k, split in enumerate(splits):
            writer.add_image(f"{k}", rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))
            for target in ("one", "two"):
                mask = np.zeros((20, 30), bool)
                mask[2 : 5 + k, 3 : 9 + len(target)] = True
                writer.add_sample(image_id=f"{k}", target=target, mask=mask, split=split, group=f"patient {k}",
                                  attributes={"size": "small"}, prompts={"p0": "", "p1": [target, f"a {target}"]})


def rows_by(dataset: PreparedDataset) -> dict[tuple[str, str], int]:
    keys = [(sample.dataset, sample.split) for sample in dataset.samples]
    return {key: keys.count(key) for key in keys}


def refusal(pool: PoolParams = POOL) -> str:
    with pytest.raises(UserError) as refused:
        pool_dataset("both", {"both": pool})
    assert not Path("data/processed/both").exists() and "\n" not in str(refused.value)
    return str(refused.value)


def test_train_and_val_are_of_the_sets_to_train_on_and_the_rest_of_the_sets_to_test_on(members, capsys):
    pool_dataset("both", {"both": POOL})
    pooled = PreparedDataset.read(members / "both")
    assert rows_by(pooled) == {("left", "train"): 4, ("left", "val"): 2, ("left", "test"): 2, ("right", "train"): 2,
                               ("right", "val"): 2, ("third", "test"): 2, ("third", "testA"): 2}
    assert "both: 16 samples of 8 images (train 6, val 4, test 4, testA 2)" in capsys.readouterr().out
    assert "train and val of left, right; test of left, third" in (members / "both/card.md").read_text()


def test_a_row_stays_as_it_is_but_for_its_place_and_its_group(members):
    pool_dataset("both", {"both": POOL})
    pooled = PreparedDataset.read(members / "both")
    own = {s.sample_id: (s, d) for d in map(PreparedDataset.read, (members / "left", members / "right",
                                                                   members / "third")) for s in d.samples}
    for sample in pooled.samples:
        first, dataset = own[sample.sample_id]
        assert (pooled.image(sample) == dataset.image(first)).all()
        assert (pooled.mask(sample) == dataset.mask(first)).all()
        for name in ("dataset", "image_id", "split", "target", "height", "width", "bbox", "area_fraction",
                     "attributes", "prompts"):
            assert getattr(sample, name) == getattr(first, name)
        assert sample.group == f"{first.dataset}/{first.group}", "patients of two sets must not be one"


def test_files_are_linked_and_copied_where_that_cannot_be(members, monkeypatch):
    pool_dataset("both", {"both": POOL})
    image = PreparedDataset.read(members / "both").samples[0].image
    assert (members / "both" / image).samefile(members / "left/images/0.png")
    monkeypatch.setattr("os.link", lambda source, target: (_ for _ in ()).throw(OSError(18, "another disk")))
    pool_dataset("both", {"both": POOL})
    copy = members / "both" / image
    assert not copy.samefile(members / "left/images/0.png")
    assert copy.read_bytes() == (members / "left/images/0.png").read_bytes()


def test_a_member_that_is_not_there_makes_the_pool_not_run(members):
    for name in ("right", "third"):
        shutil.rmtree(members / name)
        write_status(members / name, "by request only.")
    pool_dataset("both", {"both": POOL})
    status = PreparedDataset.read(members / "both").status
    assert status == {"status": "not_run", "reason": "right, third: by request only."}
    shutil.rmtree(members / "third")
    with pytest.raises(UserError, match="third/status.json does not exist"):
        pool_dataset("both", {"both": POOL})


def test_clashing_ids_are_one_sentence(members):
    prepare("left", ("train", "test"), place="right")
    said = refusal()
    assert said.startswith("pool 'both': sample id 'left/0/one' is in 'left' and in 'right'; take one of the two out")
    assert pool_faults("both", POOL) == [said]


def test_equal_names_of_two_images_are_refused_though_their_ids_differ(members):
    with PreparedWriter("data/processed/right", dataset="left") as writer:
        writer.add_image("0", np.zeros((20, 30, 3), np.uint8))
        writer.add_sample(image_id="0", target="three", mask=np.ones((20, 30), bool), split="train")
    assert "sample 'left/0/three' of data/processed/right has the files of another sample" in refusal()


@pytest.mark.parametrize(("part", "said"), [("train", "has no samples to train"), ("test", "has no samples to test")])
def test_a_member_without_rows_to_give_is_refused(members, part, said):
    prepare("third", ("val",) if part == "test" else ("test",))
    pool = POOL if part == "test" else PoolParams(train=["third"], test=["left"])
    assert refusal(pool) == f"pool 'both': its member 'third' {said}; take it out of data.pooled.both.{part}."


def _hold(path: Path, held: "multiprocessing.Event", until: Path) -> None:
    with exclusive(path, ""):
        held.set()
        while not until.exists():
            time.sleep(0.01)
        shutil.rmtree("data/processed/right")
        prepare("right", ("train", "val", "test", "late"))


def test_a_pool_waits_for_a_member_that_is_being_prepared(members, monkeypatch, capsys):
    context = multiprocessing.get_context("fork")
    held = context.Event()
    other = context.Process(target=_hold, args=(lock_of("processed", "right"), held, Path("waiting")))
    other.start()
    assert held.wait(30)
    monkeypatch.setattr("featherseg.core.locks.print", lambda *_, **__: Path("waiting").touch(), raising=False)
    pool_dataset("both", {"both": PoolParams(train=["right"], test=["right"])})
    other.join()
    assert ("right", "late") in rows_by(PreparedDataset.read(members / "both"))


def test_an_absent_file_of_a_member_is_told(members):
    (members / "left/masks/0__one.png").unlink()
    assert "left/masks/0__one.png does not exist; run the prepare stage again" in refusal()


def test_the_command_makes_a_declared_pool_and_refuses_another(members):
    declare(both={"train": ["left"], "test": ["left"]})
    main(["pool", "both"])
    assert (members / "both/samples.parquet").is_file()
    with pytest.raises(SystemExit, match="unknown pool in params.yaml: data.pooled 'bth'.*both"):
        main(["pool", "bth"])


def declare(**pools) -> None:
    shutil.copytree(ROOT / "recipes", "recipes", dirs_exist_ok=True)
    for name in ("left", "right", "third"):
        Path(name).mkdir(exist_ok=True)
    write_yaml("params.yaml", {
        "study": {"recipes": ["clipseg-decoder"], "datasets": list(pools), "seeds": [0]},
        "model": {"weights": {"clipseg": "random"}},
        "data": {"folders": {name: {"path": name} for name in ("left", "right", "third")}, "pooled": pools,
                 "official": ["isic2016"]}})


@pytest.mark.parametrize(("pools", "said"), [
    ({"both": {"train": ["lef"], "test": ["left"]}}, "data.pooled.both 'lef'"),
    ({"left": {"train": ["left"], "test": ["left"]}}, "'data.pooled.left' is the name of another dataset"),
    ({"both": {"train": ["left"], "test": ["left"]}, "more": {"train": ["both"], "test": ["left"]}},
     "data.pooled.more 'both'"),
    ({"both": {"train": [], "test": ["left"]}}, "data.pooled.both.train"),
    ({"both": {"train": ["left"]}}, "data.pooled.both.test")])
def test_a_declaration_that_cannot_be_is_refused_before_anything_runs(pools, said):
    declare(**pools)
    with pytest.raises(UserError) as refused:
        resolve_study("study")
    assert said in str(refused.value)


def test_a_study_names_a_pool_like_any_dataset_and_lists_what_it_lacks(members):
    declare(both={"train": ["left"], "test": ["left", "isic2016"]})
    run, = resolve_study("study")
    pools = {"both": PoolParams(train=["left"], test=["left", "isic2016"])}
    assert run.name == "clipseg-decoder-both-0"
    assert missing(run, pools) == "data/processed/isic2016 is not prepared yet"
    write_status(members / "isic2016", "no archive.")
    assert missing(run, pools) == "no archive."
    assert missing(run.model_copy(update={"dataset": "left"}), pools) is None


def test_check_reads_pools_once_their_members_are_there(members):
    declare(both={"train": ["left", "right"], "test": ["left", "isic2016"]})
    for name in ("left", "right", "third"):
        shutil.rmtree(name)
    write_yaml("params.yaml", {
        "study": {"recipes": ["clipseg-decoder"], "datasets": ["both"], "seeds": [0]},
        "model": {"weights": {"clipseg": "random"}},
        "data": {"official": ["kvasir_seg", "isic2016"], "pooled": {"both": {
            "train": ["kvasir_seg", "isic2016"], "test": ["kvasir_seg"]}}}})
    (members / "left").rename(members / "kvasir_seg")
    assert check_project(["study"]) == []
    shutil.copytree(members / "kvasir_seg", members / "isic2016")
    fault, = check_project(["study"])
    assert "sample id 'left/0/one' is in 'kvasir_seg' and in 'isic2016'" in fault


def test_a_pool_can_be_made_of_a_set_that_is_tested_elsewhere(members):
    pool_dataset("both", {"both": PoolParams(train=["right"], test=["left", "third"])})
    assert rows_by(PreparedDataset.read(members / "both")) == {
        ("right", "train"): 2, ("right", "val"): 2, ("left", "test"): 2, ("third", "test"): 2, ("third", "testA"): 2}
    assert pooling.lacking(PoolParams(train=["right"], test=["left", "third"])) is None


def test_every_declared_pool_has_a_stage_that_depends_on_its_members():
    pools = parse(DataParams, read_yaml(ROOT / "params.yaml")["data"], "params.yaml").pooled
    stages = {name: stage for path in ROOT.glob("pipelines/*/dvc.yaml")
              for name, stage in read_yaml(path)["stages"].items() if name.startswith("pool_")}
    assert stages.keys() == {f"pool_{name}" for name in pools}
    for name, pool in pools.items():
        stage = stages[f"pool_{name}"]
        assert stage["cmd"].endswith(f" featherseg pool {name}") and stage["params"] == [f"data.pooled.{name}"]
        members = [dep.removeprefix("data/processed/") for dep in stage["deps"] if dep.startswith("data/")]
        assert sorted(members) == sorted(pool.members) and stage["outs"] == [f"data/processed/{name}"]


def test_the_papers_regimes_leave_no_domain_in_training_that_they_test():
    pools = parse(DataParams, read_yaml(ROOT / "params.yaml")["data"], "params.yaml").pooled
    left_out = [name for name in pools if name.startswith("all_but_")]
    assert len(left_out) == 4
    for name in left_out:
        assert not set(pools[name].train) & set(pools[name].test)
        assert set(pools[name].members) >= set(pools["all"].train)
    declared = read_yaml(ROOT / "pipelines/medvlsm/params.yaml")["study"]["datasets"]
    assert set(declared) == {*pools, *pools["all"].train} - {"lesions_and_organs", "lesions_to_organs"}


def test_a_pool_is_never_written_over_a_member(members):
    before = {path: path.read_bytes() for path in members.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="data/processed/left would be written where data/processed/left is read"):
        pool_dataset("left", {"left": POOL})
    (members / "link").symlink_to(members / "right")
    with pytest.raises(UserError, match="data/processed/link would be written where data/processed/right is read"):
        pool_dataset("link", {"link": POOL})
    assert before == {path: path.read_bytes() for path in before}
