"""`jaxood.road` and the command: what they write, go on from, compare and refuse."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from damage import flipped
from interruption import Interrupted, recording
from PIL import Image
from redness import Redness, WithoutMap, picture, reds

import jaxood
from jaxood.cli import main
from jaxood.errors import UsageError
from jaxood.flows.measuring import append_finding, load_findings
from jaxood.perturbation.measure import Finding
from jaxood.perturbation.results import join_random, summary
from jaxood.perturbation.road import Curves, RoadSettings

SETTINGS = {"steps": 4, "random_maps": 2, "batch_size": 8}
FILES = ["areas.csv", "curves.csv", "curves.json", "manifest.json", "road.png", "strip.png"]


@pytest.fixture
def photos(tmp_path):
    """Three pictures and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        Image.fromarray(picture(seed)).save(folder / f"{seed}.png")
    (folder / "1b.png").write_bytes(b"no image")
    return folder


def wins(printed):
    """On how many images `mine` beats random maps, by MoRF and by LeRF."""
    rows = [line.split() for line in printed.splitlines() if line.startswith("  mine ")]
    return [row[-1] for row in rows[:2]]


def test_a_faithful_map_beats_the_random_ones(photos):
    maps = reds(4)[[0, 1, 3, 2]]  # of 1b.png: whatever
    found = jaxood.road(Redness(), photos, "banzhaf", maps={"mine": maps}, **SETTINGS)
    areas = found.areas()
    assert list(areas) == ["banzhaf", "mine", "random"]
    assert all(rows.shape == (3, 3) for rows in areas.values())
    for method in ("banzhaf", "mine"):
        assert (areas[method][:, 0] < areas["random"][:, 0]).all()
    assert (areas["mine"][:, 1] > areas["random"][:, 1]).all()
    np.testing.assert_allclose(areas["mine"][:, 2], (areas["mine"][:, 1] - areas["mine"][:, 0]) / 2)
    assert [(one.index, one.id) for one in found.skipped] == [(2, "1b.png")]
    assert "1 of 4 images left out" in str(found) and wins(str(found)) == ["3/3", "3/3"]


def test_maps_of_the_attribute_flow_are_those_of_its_method(photos, tmp_path):
    jaxood.attribute(Redness(), photos, ["banzhaf"]).save(tmp_path / "maps")
    given = {"given": tmp_path / "maps" / "maps.npz"}
    with np.load(given["given"]) as arrays:
        np.savez(tmp_path / "given.npz", ids=arrays["ids"], given=arrays["banzhaf"])
    given = {"given": tmp_path / "given.npz"}
    areas = jaxood.road(Redness(), photos, ["banzhaf"], maps=given, **SETTINGS).areas()
    assert areas["given"].shape == (3, 3)  # 1b.png cannot be decoded, and has no map
    np.testing.assert_allclose(areas["given"], areas["banzhaf"], atol=1e-5)
    Image.fromarray(picture(7)).save(photos / "1b.png")
    with pytest.raises(UsageError, match="maps: got no map given of 1b.png, wanted a map of"):
        jaxood.road(Redness(), photos, maps=given, **SETTINGS)


def test_images_in_memory_and_a_class_by_name():
    images = [Image.fromarray(picture(0)), picture(1)]
    red, same, blue = (
        jaxood.road(Redness(), images, target=target, **SETTINGS) for target in ("red", 0, "blue")
    )
    assert [curve.id for curve in red.curves[:2]] == ["images/0", "images/1"]
    for one, two, other in zip(red.curves, same.curves, blue.curves, strict=True):
        assert (one.target, two.target, other.target) == (0, 0, 1)
        np.testing.assert_array_equal(one.confidence, two.confidence)
    first = [curve.confidence[0, 0] for curve in (red.curves[0], blue.curves[0])]
    assert sum(first) == pytest.approx(1, abs=1e-5)  # of two classes, nothing removed
    with pytest.raises(UsageError, match="target: got 'green', wanted an index below 2, or a name"):
        jaxood.road(Redness(), images, target="green", **SETTINGS)


def test_a_model_without_a_feature_map_is_measured_on_maps_from_elsewhere():
    found = jaxood.road(WithoutMap(), list(map(picture, range(2))), maps={"m": reds(2)}, **SETTINGS)
    assert list(found.areas()) == ["m", "random"]
    with pytest.raises(UsageError, match="without a feature map|not the mean of its feature map"):
        jaxood.road(WithoutMap(), [picture()], "banzhaf", **SETTINGS)


def test_the_same_image_twice_is_two_images(photos, tmp_path):
    path = photos / "0.png"
    found = jaxood.road(Redness(), [path, path], "banzhaf", store=tmp_path / "out", **SETTINGS)
    assert [curve.id for curve in found.curves[:2]] == [str(path), f"{path} (2)"]
    (one, two), random = found.areas()["banzhaf"], found.areas()["random"]
    np.testing.assert_allclose(one, two, atol=0.02)  # other noise
    assert len(random) == 2
    assert len((tmp_path / "out" / "measured.jsonl").read_text().splitlines()) == 2 * 3


def test_a_first_image_that_is_gone_gives_no_strip(tmp_path, caplog):
    found = jaxood.road(Redness(), [picture()], "banzhaf", **SETTINGS)
    dataclasses.replace(found, sample=()).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES[:-1]
    assert caplog.messages == ["the first image is gone: no strip.png"]


def measured(photos, store, stop=None, **settings):
    calls = []
    progress = recording(calls, stop)
    found = jaxood.road(
        Redness(), photos, ["banzhaf"], store=store, progress=progress, **(SETTINGS | settings)
    )
    return found, calls


def test_a_resumed_run_gives_the_same_files(photos, tmp_path):
    whole, calls = measured(photos, tmp_path / "whole")
    # 3 images, 3 maps, 2 orders, 4 fractions; that one of four is no image is found on the way
    assert calls[0] == (0, 4 * 3 * 2 * 4) and calls[-1] == (72, 72)
    whole.save(tmp_path / "whole")
    parts = tmp_path / "parts"
    with pytest.raises(Interrupted):
        measured(photos, parts, stop=48)
    lines = (parts / "measured.jsonl").read_bytes()
    assert 0 < len(lines.splitlines()) < 9
    (parts / "measured.jsonl").write_bytes(lines[:-40])  # interrupted while it wrote
    again, calls = measured(photos, parts)
    assert 0 < calls[-1][0] == calls[-1][1] < 72
    again.save(parts)
    assert again.skipped == whole.skipped and len(again.skipped) == 1
    for name in FILES:
        assert (parts / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    kept = [
        sorted((tmp_path / run / "measured.jsonl").read_bytes().splitlines())
        for run in ("parts", "whole")
    ]
    assert kept[0] == kept[1]

    finished, calls = measured(photos, parts)  # nothing left but the file that is no image
    assert calls[-1][0] == 0 and finished.skipped == whole.skipped
    assert len((parts / "measured.jsonl").read_bytes().splitlines()) == 9
    finished.save(tmp_path / "finished")
    for name in FILES:
        assert (tmp_path / "finished" / name).read_bytes() == (parts / name).read_bytes(), name


@pytest.mark.parametrize("change", [{"noise": 0.2}, {"seed": 1}, {"scale": "unit"}, {"target": 1}])
def test_with_other_settings_curves_are_computed_anew(photos, tmp_path, change):
    first, _ = measured(photos / "0.png", tmp_path)
    second, calls = measured(photos / "0.png", tmp_path, **change)
    assert calls[-1] == (24, 24)
    assert len((tmp_path / "measured.jsonl").read_bytes().splitlines()) == 6
    different = [
        np.abs(one.confidence - two.confidence).max()
        for one, two in zip(first.curves, second.curves, strict=True)
    ]
    assert max(different) > 1e-3
    back, calls = measured(photos / "0.png", tmp_path)
    assert calls == [] and len(back.curves) == 3
    for one, two in zip(first.curves, back.curves, strict=True):
        np.testing.assert_array_equal(one.confidence, two.confidence)


def test_files_agree_with_each_other(photos, tmp_path):
    found, _ = measured(photos, None)
    found.save(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.*")) == FILES
    means = json.loads((tmp_path / "curves.json").read_text())
    assert means["fractions"] == [0.0, 0.25, 0.5, 0.75]
    areas = list(csv.DictReader((tmp_path / "areas.csv").read_text().splitlines()))
    points = list(csv.DictReader((tmp_path / "curves.csv").read_text().splitlines()))
    assert len(areas) == 2 * 3 and len(points) == 6 * 2 * 4
    for row in areas:
        curve = [
            float(point["confidence"])
            for point in points
            if point["image"] == row["image"]
            and point["method"] == row["method"]
            and point["order"] == "morf"
        ]
        by_hand = 0.25 * (curve[0] / 2 + curve[1] + curve[2] + curve[3] / 2)
        assert float(row["morf"]) == pytest.approx(by_hand, rel=1e-5)
    mean = np.mean([float(row["morf"]) for row in areas if row["method"] == "banzhaf"])
    assert means["methods"]["banzhaf"]["areas"]["morf"]["mean"] == pytest.approx(mean, abs=1e-6)
    about = json.loads((tmp_path / "manifest.json").read_text())
    assert about["road"]["before_normalisation"] is False and about["arguments"]["seed"] == 0
    assert list(about["data"]["images"]["skipped"]) == ["1b.png"]
    for name in ("road.png", "strip.png"):
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 10


def test_draws_do_not_depend_on_where_a_folder_lies(photos, tmp_path):
    moved = photos.rename(tmp_path / "elsewhere")
    one, two = (jaxood.road(Redness(), where, **SETTINGS) for where in (moved, [moved]))
    assert [curve.id for curve in one.curves] != [curve.id for curve in two.curves]
    for first, second in zip(one.curves, two.curves, strict=True):
        np.testing.assert_array_equal(first.confidence, second.confidence)


def test_no_image_that_can_be_decoded(photos):
    with pytest.raises(UsageError, match="images: got 1, none of which can be decoded.*1b.png"):
        jaxood.road(Redness(), photos / "1b.png", **SETTINGS)


def command(photos, *more, output="out"):
    arguments = [str(photos), "--model", "redness:Redness", "--steps", "4"]
    arguments += ["--batch-size", "8", "--random-maps", "2", *more]
    return main("road", [*arguments, "--output", str(photos.parent / output)])


def test_the_command_writes_what_the_function_finds(photos, capsys):
    maps = photos.parent / "maps.npz"
    ids = [str(photos / name) for name in ("0.png", "1.png", "1b.png", "2.png")]
    np.savez(maps, ids=ids, mine=reds(4)[[0, 1, 3, 2]])
    assert command(photos, "--method", "banzhaf", "--maps", f"mine={maps}") == 0
    printed = capsys.readouterr().out
    assert "1 of 4 images left out" in printed and wins(printed) == ["3/3", "3/3"]
    out = photos.parent / "out"
    assert sorted(path.name for path in out.glob("*.*")) == sorted(
        [*FILES, "command.toml", "measured.jsonl"]
    )
    ours = jaxood.road("redness:Redness", [photos], "banzhaf", maps={"mine": maps}, **SETTINGS)
    found = json.loads((out / "curves.json").read_text())
    assert found["methods"].keys() == ours.summary["methods"].keys()
    for method, values in found["methods"].items():
        assert values["areas"] == ours.summary["methods"][method]["areas"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--method", "banzaf"), "banzhaf"),
        (("--maps", "mine"), "--maps: got mine, wanted NAME=FILE.npz"),
        (("--maps", "mine=a.npz", "--maps", "mine=b.npz"), "a name once"),
        (("--maps", "mine=nothing.npz"), "an NPZ file of arrays"),
        (("--thresholds", "0.5", "1"), "--thresholds: got (0.5, 1.0), wanted rising numbers"),
        (("--strip", "0.3"), "--strip: got 0.3, wanted one of the fractions measured: 0 0.25"),
        (("--imputation", "liner"), "Did you mean linear"),
        (("--convention", "notebok"), "Did you mean notebook"),
        (("--noise", "-1"), "--noise: got -1.0"),
        (("--noise", "nan"), "--noise: got nan"),
        (("--steps", "0"), "wanted a whole number of at least 1"),
        (("--seed", "-1"), "--seed: got -1"),
        (("--target", "green"), "--target: got 'green'"),
    ],
)
def test_the_command_refuses_in_one_line(photos, capsys, more, message):
    assert command(photos, *more) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert not (photos.parent / "out").exists()


def curve(method="random/0", image="a", value=1.0, **more):
    values = {"iterations": 3, "residual": 0.1} | more
    confidence = np.full((2, 3), value, np.float32)
    return Curves(image, method, 1, confidence, np.ones((2, 3), bool), **values)


def test_random_maps_become_their_mean():
    joined = join_random([curve(), curve("random/1", value=0.0, iterations=5, residual=0.05)])
    assert list(joined) == ["random"]
    found = joined["random"]["a"]
    assert (found.method, found.iterations, found.residual) == ("random", 5, 0.1)
    np.testing.assert_array_equal(found.confidence, 0.5)


def test_summary_by_hand():
    settings = RoadSettings((0.0, 0.5, 0.75))
    curves = [curve("mine", "a", 0.2), curve("mine", "b", 0.8)]
    curves += [curve("random/0", "a", 0.4), curve("random/0", "b", 0.4)]
    found = summary(join_random(curves), settings, 0)["methods"]["mine"]
    assert found["images"] == 2 and found["beats_random"] == {"morf": 1, "lerf": 1}
    assert found["areas"]["morf"]["mean"] == pytest.approx(0.75 * 0.5)
    assert found["areas"]["morf"]["low"] == pytest.approx(0.75 * 0.2)
    assert found["morf"]["confidence"]["mean"] == pytest.approx([0.5] * 3)


def test_findings_go_there_and_back(tmp_path):
    path = tmp_path / "new" / "measured.jsonl"
    ours = Finding("a", "mine", "road", 1, {"morf": 1 / 3}, {"morf": [0.1, float(np.float32(0.2))]})
    append_finding(path, ours, "f1")
    append_finding(path, ours._replace(method="other"), "f2")
    append_finding(path, ours._replace(measure="deletion"), "f1")
    found = load_findings(path, {"road": {"mine": "f1", "other": "f3"}})
    assert found == [ours]
    assert load_findings(tmp_path / "none.jsonl", {}) == []


def test_any_flipped_bit_of_the_findings_is_noticed(tmp_path, caplog):
    path, generator = tmp_path / "measured.jsonl", np.random.default_rng(0)
    names, prints = ("a", "b", "c"), {"road": {"mine": "f1"}}
    for name in names:
        finding = Finding(name, "mine", "road", 1, {"morf": generator.random()})
        append_finding(path, finding, "f1")
    content = path.read_bytes()
    whole = {one.id: one for one in load_findings(path, prints)}
    assert tuple(whole) == names and not caplog.messages
    for changed in flipped(content, generator.integers(0, len(content), 200), generator):
        path.write_bytes(changed)
        found = load_findings(path, prints)
        assert len(found) < len(names)
        assert all(whole[one.id] == one for one in found)
        told = len(caplog.messages)
        assert load_findings(path, prints)[len(found) :] == [] and len(caplog.messages) == told
