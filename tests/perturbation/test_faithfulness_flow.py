"""`jaxood.faithfulness` and the command: what they write, go on from, compare and refuse."""

import csv
import json
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest
from interruption import Interrupted, recording
from PIL import Image
from redness import Redness, WithoutMap, picture, redness, reds

import jaxood
from jaxood.cli import main
from jaxood.errors import UsageError
from jaxood.flows.faithfulness import FILES
from jaxood.perturbation.measure import Finding
from jaxood.perturbation.measures import measures_of
from jaxood.report.faithfulness import cells_of, columns_of, markdown, mean_ranks

ROAD = "road[steps=4,imputation=mean]"
MEASURES = ["insertion[steps=4]", "deletion[steps=4]", "average-drop", ROAD]
SETTINGS = {"measures": MEASURES, "random_maps": 2, "batch_size": 8}


@pytest.fixture
def photos(tmp_path):
    """Three pictures and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        Image.fromarray(picture(seed)).save(folder / f"{seed}.png")
    (folder / "1b.png").write_bytes(b"no image")
    return folder


def given():
    return {"mine": reds(4)[[0, 1, 3, 2]]}  # of 1b.png: whatever


def test_one_table_with_the_random_maps_beside(photos):
    found = jaxood.faithfulness(Redness(), photos, "banzhaf", maps=given(), **SETTINGS)
    assert list(found.columns) == [*MEASURES[:3], f"{ROAD} morf", f"{ROAD} lerf"]
    assert len(found.table) == 5 * 3
    for name, column in found.columns.items():
        assert list(column.values) == ["banzhaf", "mine", "random"], name
        assert all(len(values) == 3 for values in column.values.values())
    for cell in found.table:
        values = found.values(cell.column)[cell.method]
        assert cell.mean == pytest.approx(values.mean()) and cell.images == 3
        assert cell.low <= cell.mean <= cell.high
    deletion = found.values("deletion[steps=4]")
    assert (deletion["mine"] < deletion["random"]).all()
    assert [(one.index, one.id) for one in found.skipped] == [(2, "1b.png")]
    told = str(found)
    assert "1 of 4 images left out" in told and "deletion[steps=4] (low is good)" in told
    assert "mean rank: " in told
    assert max(map(len, told.splitlines()[2:])) <= 80
    assert found.random_wins["deletion[steps=4]"] == {"banzhaf": [], "mine": []}


def test_road_is_one_of_the_measures(photos):
    both = {"random_maps": 2, "batch_size": 8}
    ours = jaxood.faithfulness(Redness(), photos, "banzhaf", measures="road[steps=4]", **both)
    theirs = jaxood.road(Redness(), photos, "banzhaf", steps=4, scale="unit", **both).areas()
    for method, areas in theirs.items():
        for i, order in enumerate(("morf", "lerf")):
            np.testing.assert_allclose(
                ours.values(f"road[steps=4] {order}")[method], areas[:, i], atol=1e-6
            )


def run(photos, store, stop=None, **settings):
    calls = []
    progress = recording(calls, stop)
    found = jaxood.faithfulness(
        Redness(), photos, ["banzhaf"], store=store, progress=progress, **(SETTINGS | settings)
    )
    return found, calls


def test_a_resumed_run_gives_the_same_files(photos, tmp_path):
    whole, calls = run(photos, tmp_path / "whole")
    work = 3 * (5 + 5 + 2 + 8)  # three maps of an image
    assert calls[0] == (0, 4 * work) and calls[-1] == (3 * work, 3 * work)
    whole.save(tmp_path / "whole")
    parts = tmp_path / "parts"
    with pytest.raises(Interrupted):
        run(photos, parts, stop=1.5 * work)
    lines = (parts / "measured.jsonl").read_bytes()
    assert 0 < len(lines.splitlines()) < 3 * 3 * 4
    (parts / "measured.jsonl").write_bytes(lines[:-40])  # interrupted while it wrote
    again, calls = run(photos, parts)
    assert 0 < calls[-1][0] == calls[-1][1] < 3 * work
    again.save(parts)
    for name in FILES:
        assert (parts / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    more, calls = run(photos, parts, measures=[*MEASURES, "increase"])
    assert calls[-1][1] == 3 * 3 * 2  # only the new one
    np.testing.assert_array_equal(
        more.values("deletion[steps=4]")["banzhaf"], whole.values("deletion[steps=4]")["banzhaf"]
    )


@pytest.mark.parametrize("change", [{"seed": 1}, {"target": 1}])
def test_with_other_settings_all_is_computed_anew(photos, tmp_path, change):
    first, _ = run(photos / "0.png", tmp_path)
    second, calls = run(photos / "0.png", tmp_path, **change)
    assert calls[-1] == (60, 60)
    assert first.values("insertion[steps=4]")["random"] != pytest.approx(
        second.values("insertion[steps=4]")["random"], abs=1e-5
    )


def test_files_agree_with_each_other(photos, tmp_path):
    found, _ = run(photos, None)
    found.save(tmp_path / "out")
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    values = list(csv.DictReader((out / "values.csv").read_text().splitlines()))
    assert len(values) == 5 * 2 * 3  # columns, methods, images
    table = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    for cell in table:
        mine = [
            float(row["value"])
            for row in values
            if (row["measure"], row["method"]) == (cell["column"], cell["method"])
        ]
        assert np.mean(mine) == pytest.approx(float(cell["mean"]))
        assert (cell["beats_random"] == "") == (cell["method"] == "random")
    points = list(csv.DictReader((out / "curves.csv").read_text().splitlines()))
    deletion = [
        float(row["mean"])
        for row in points
        if (row["measure"], row["method"]) == ("deletion[steps=4]", "banzhaf")
    ]
    area = np.mean((np.array(deletion)[1:] + deletion[:-1]) / 2)
    cell = next(c for c in found.table if (c.column, c.method) == ("deletion[steps=4]", "banzhaf"))
    assert area == pytest.approx(cell.mean, rel=1e-5)
    about = json.loads((out / "manifest.json").read_text())
    assert list(about["data"]["images"]["skipped"]) == ["1b.png"]
    assert about["arguments"]["measures"] == MEASURES
    for name in ("faithfulness.png", "curves.png"):
        assert np.asarray(Image.open(out / name).convert("L")).std() > 10


def test_maps_from_elsewhere_alone():
    images = [picture(0), picture(1)]
    found = jaxood.faithfulness(WithoutMap(), images, maps={"m": reds(2)}, measures="deletion")
    assert {cell.method for cell in found.table} == {"m", "random"}
    with pytest.raises(UsageError, match="images: got 1, none of which can be decoded"):
        jaxood.faithfulness(Redness(), [Image.new("I", (8, 8))], **SETTINGS)


def test_measures_of_localisation_need_objects(photos, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("0", "2"):  # nobody has said where the object of 1 is
        mask = np.zeros((16, 16), np.uint8)
        mask[2:8, 2:8] = 1
        Image.fromarray(mask).save(masks / f"{name}.png")
    settings = {"measures": ["energy-pointing", "pointing-game[tolerance=0.0]"], "random_maps": 2}
    settings |= {"maps": given(), "objects": masks, "store": tmp_path / "out"}
    for _ in range(2):  # the second from the store
        found = jaxood.faithfulness(Redness(), photos, **settings)
        assert [cell.images for cell in found.table] == [2, 2, 2, 2]
        values = found.values("energy-pointing")["mine"]
        for value, index in zip(values, (0, 2), strict=True):
            red = picture(index)[..., 0].astype(float)
            assert value == pytest.approx(red[2:8, 2:8].sum() / red.sum(), rel=1e-5)
        assert found.values("pointing-game[tolerance=0.0]")["mine"].tolist() == [1, 1]
    Image.fromarray(1 - mask).save(masks / "2.png")
    found = jaxood.faithfulness(Redness(), photos, **settings)
    assert found.values("pointing-game[tolerance=0.0]")["mine"].tolist() == [1, 0]
    with pytest.raises(UsageError, match="objects: got none, wanted boxes or masks for measure en"):
        jaxood.faithfulness(Redness(), photos, measures="energy-pointing")


@dataclass(frozen=True)
class Broken(jaxood.Attribution):
    """Not a number where the image is red."""

    def __call__(self, context):
        red = context.images[..., 0]
        return jnp.where(red > 1, jnp.nan, red)


def test_a_map_that_is_not_finite_is_named():
    with pytest.raises(UsageError, match=r"map .*Broken of images/0: got nan or inf"):
        jaxood.faithfulness(Redness(), [picture(0)], Broken(), measures="sparseness")


def finding(method, image, value, measure="deletion"):
    return Finding(image, method, measure, 0, {"": value})


def test_the_table_by_hand():
    chosen = measures_of(["deletion", "increase"])
    findings = [finding("mine", "a", 0.2), finding("mine", "b", 0.8)]
    findings += [finding("other", "a", 0.5), finding("other", "b", 0.5)]
    findings += [finding("random/0", "a", 0.2), finding("random/1", "a", 0.6)]
    findings += [finding("random/0", "b", 0.7), finding("random/1", "b", 0.7)]
    findings += [finding("mine", "a", 1.0, "increase")]
    findings += [finding("mine", "b", 1.0, "increase")._replace(values={})]  # says nothing of b
    columns = columns_of(findings, chosen)
    assert columns["deletion"].values["random"].tolist() == pytest.approx([0.4, 0.7])
    mine, other, random = cells_of(columns["deletion"], 0)
    assert (mine.mean, other.mean, random.mean) == pytest.approx((0.5, 0.5, 0.55))
    assert (mine.rank, other.rank, random.rank) == (1, 1, 3)  # equal, and low is good
    assert (mine.beats_random, other.beats_random, random.beats_random) == (1, 1, None)
    assert mine.gain == pytest.approx((0.2 - 0.1) / 2)
    assert (mine.low, mine.high) == pytest.approx((0.2, 0.8))
    (single,) = cells_of(columns["increase"], 0)
    assert (single.images, single.mean, single.beats_random) == (1, 1.0, None)
    cells = [*cells_of(columns["deletion"], 0), single]
    lines = markdown(cells).splitlines()
    assert lines[0] == "| measure | good | mine | other | random |"
    assert lines[2].startswith(
        "| `deletion` | low | **0.500** [0.200, 0.800] 1 | **0.500** [0.500,"
    )
    assert lines[2].endswith("| 0.550 [0.400, 0.700] 3 |")
    assert lines[3] == "| `increase` | high | **1.000** [1.000, 1.000] 1 |  |  |"
    assert mean_ranks(cells) == {"mine": 1.0, "other": 1.0, "random": 3.0}  # of all three


def command(photos, *more):
    arguments = [str(photos), "--model", "redness:Redness", "--batch-size", "8"]
    arguments += ["--random-maps", "2", *more, "--output", str(photos.parent / "out")]
    return main("faithfulness", arguments)


def test_the_command_writes_what_the_function_finds(photos, capsys):
    maps = photos.parent / "maps.npz"
    ids = [str(photos / name) for name in ("0.png", "1.png", "1b.png", "2.png")]
    np.savez(maps, ids=ids, **given())
    more = ("--method", "banzhaf", "--maps", f"mine={maps}", "--measure", *MEASURES)
    assert command(photos, *more) == 0
    printed = capsys.readouterr().out
    assert "1 of 4 images left out" in printed and "3/3" in printed
    out = photos.parent / "out"
    assert sorted(path.name for path in out.glob("*.*")) == sorted(
        [*FILES, "command.toml", "measured.jsonl"]
    )
    ours = jaxood.faithfulness(
        "redness:Redness", [photos], "banzhaf", maps={"mine": maps}, **SETTINGS
    )
    found = json.loads((out / "faithfulness.json").read_text())
    assert found["table"] == [vars(cell) for cell in ours.table]
    assert found["random_wins"] == ours.random_wins


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--method", "banzaf"), "banzhaf"),
        (("--measure", "deletoin"), "--measure: got 'deletoin'"),
        (("--measure", "deletion[baseline=x]"), "deletion.baseline: got 'x'"),
        (("--maps", "mine"), "--maps: got mine, wanted NAME=FILE.npz"),
        (("--seed", "-1"), "--seed: got -1"),
        (("--target", "green"), "--target: got 'green'"),
    ],
)
def test_the_command_refuses_in_one_line(photos, capsys, more, message):
    assert command(photos, *more) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert not (photos.parent / "out").exists()


def test_stability_measures_the_variants():
    images = [picture(0), picture(1)]
    chosen = ["deletion[steps=4]", "sensitivity-n[subsets=5]", "sparseness"]
    settings = {"measures": chosen, "maps": {"m": reds(2)}, "random_maps": 1}
    found = jaxood.faithfulness(WithoutMap(), images, stability=True, **settings)
    plain = jaxood.faithfulness(WithoutMap(), images, **settings)
    assert found.table == plain.table and plain.stability == []
    told = {(one.column, one.changed): one for one in found.stability}
    assert set(told) == {
        ("deletion[steps=4]", "baseline"),
        ("deletion[steps=4]", "resolution"),
        ("sensitivity-n[subsets=5]", "seed"),
        ("sensitivity-n[subsets=5]", "baseline"),
    }
    moved = told["deletion[steps=4]", "baseline"]
    assert moved.variants == (
        "deletion[baseline=mean,steps=4]",
        "deletion[baseline=blur,steps=4]",
    )
    means = {}
    for name in ("deletion[steps=4]", *moved.variants):
        one = jaxood.faithfulness(WithoutMap(), images, **(settings | {"measures": name}))
        means[name] = np.array([one.values(name)[method].mean() for method in ("m", "random")])
    base, *others = means.values()
    assert moved.spread == pytest.approx(np.ptp(base))
    assert moved.shift == pytest.approx(np.mean([np.abs(other - base) for other in others]))
    assert moved.order == 1  # of two methods, the same one is better
    assert "resolution" in str(found)


@pytest.mark.long
def test_purification_by_the_same_maps(tmp_path):
    from jaxood.data.images import Arrays

    known = Arrays(np.stack([picture(seed) for seed in range(4)]), None, "known")
    foreign = Arrays(np.stack([picture(seed)[::-1] for seed in range(4, 8)]), None, "foreign")
    suite = jaxood.Suite("reds", None, known, {"foreign": foreign})
    settings = {"suite": suite, "measures": "deletion[steps=2]", "random_maps": 1}
    found = jaxood.faithfulness(redness(), None, ["banzhaf", "sobel"], **settings)
    ours = found.purification
    evaluated = jaxood.evaluate(
        redness(), suite, ["energy", "sfp[by=banzhaf[coalitions=240]]", "sfp[by=sobel]"]
    )
    theirs = {result.method: result.mean("auroc") for result in evaluated.results}
    assert ours.energy == theirs["energy"]
    assert ours.auroc["sobel"] == theirs["sfp[by=sobel]"]
    assert set(ours.auroc) == {"banzhaf", "sobel", "random"}
    assert ours.gain["sobel"] == ours.auroc["sobel"] - ours.energy
    agreement = ours.agreement(found.table)
    assert set(agreement) == {"deletion[steps=2]"} and -1 <= agreement["deletion[steps=2]"] <= 1
    assert "AUROC gain of sfp by each map" in str(found)
    found.save(tmp_path)
    saved = json.loads((tmp_path / "faithfulness.json").read_text())["purification"]
    assert saved["gain"] == ours.gain and saved["suite"] == "reds"
    with pytest.raises(UsageError, match="images: got none, wanted images, or a suite"):
        jaxood.faithfulness(redness())
