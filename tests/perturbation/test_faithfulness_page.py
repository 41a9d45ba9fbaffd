"""report.html of faithfulness: its numbers are those of the other files, its maps the maps."""

import base64
import csv
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from redness import SIDE, picture, redness, reds
from report_pages import tables

import jaxood
from jaxood.data.images import Arrays
from jaxood.flows import faithfulness as flow
from jaxood.report.html import Number, table
from jaxood.report.svg import LEFT
from jaxood.report.svg import SIDE as WIDTH

MEASURES = ["deletion[steps=4]", "insertion[steps=4]", "sensitivity[draws=2]"]
WIDE = 28  # pixels, of which the model sees the middle


def folder_of_photos(folder):
    """Three pictures with grey at both sides, and a file that is none."""
    folder.mkdir()
    for seed in range(3):
        wide = np.full((SIDE, WIDE, 3), 120, np.uint8)
        wide[:, 6:22] = picture(seed)
        Image.fromarray(wide).save(folder / f"{seed}.png")
    (folder / "1b.png").write_bytes(b"no image")
    return folder


def measured(photos, **settings):
    known = Arrays(np.stack([picture(seed) for seed in range(4)]), None, "known")
    foreign = Arrays(np.stack([picture(seed)[::-1] for seed in range(4, 8)]), None, "foreign")
    settings = {
        "maps": {"mine": reds(4)[[0, 1, 3, 2]]},
        "measures": MEASURES,
        "random_maps": 2,
        "batch_size": 8,
        "suite": jaxood.Suite("reds", None, known, {"foreign": foreign}),
        "stability": True,
        **settings,
    }
    return jaxood.faithfulness(redness(), photos, ["banzhaf", "sobel"], **settings)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    return measured(folder_of_photos(folder / "photos")).save(folder / "out")


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def test_every_number_is_that_of_the_csv(saved):
    page = tables((saved / "report.html").read_text())
    expected = {(row["column"], row["method"]): row for row in rows(saved / "table.csv")}
    _, *shown = page["numbers"]
    assert len(shown) == len(expected) == 2 * 4 + 2 * 2
    for column, good, method, images, mean, rank, beats, gain in shown:
        row = expected[column, method]
        assert (good, images[0], rank[0]) == (row["better"], int(row["images"]), int(row["rank"]))
        assert mean[0] == float(row["mean"])
        assert numbers(mean[1]) == [round(float(row[key]), 4) for key in ("mean", "low", "high")]
        if not row["gain"]:
            assert beats == gain == "" and method in ("random", "banzhaf", "sobel")
            continue
        assert beats == (int(row["beats_random"]), f"{row['beats_random']}/{row['images']}")
        assert gain[0] == float(row["gain"])
        told = [round(float(row[key]), 4) for key in ("gain", "gain_low", "gain_high")]
        assert numbers(gain[1]) == told


def test_methods_stand_against_measures(saved):
    head, *shown = tables((saved / "report.html").read_text())["summary"]
    expected = {(row["column"], row["method"]): row for row in rows(saved / "table.csv")}
    ranks = json.loads((saved / "faithfulness.json").read_text())["mean_ranks"]
    columns = [re.fullmatch(r"(.*) \((low|high)\)", title)[1] for title in head[2:]]
    assert columns == list(dict.fromkeys(column for column, _ in expected))
    assert [row[0] for row in shown] == list(ranks) and len(shown) == 4
    for method, rank, *cells in shown:
        assert rank[0] == ranks[method]
        for column, cell in zip(columns, cells, strict=True):
            row = expected.get((column, method))
            if row is None:
                assert (
                    cell == "" and column.startswith("sensitivity") and method in ("mine", "random")
                )
            else:
                assert cell[0] == float(row["mean"]) and cell[1].endswith(f"] {row['rank']}")


def test_values_of_an_image_are_those_of_the_csv(saved):
    html = (saved / "report.html").read_text()
    values = {
        (row["image"], row["method"], row["measure"]): float(row["value"])
        for row in rows(saved / "values.csv")
    }
    for number, name in enumerate(re.findall("<h3>(.*?)</h3>", html)):
        head, *shown = tables(html)[f"image-{number}"]
        for method, *cells in shown:
            for title, cell in zip(head[1:], cells, strict=True):
                value = values.pop((name, method, title.rpartition(" ")[0]), "")
                assert cell == (value and (value, f"{value:.3f}"))
    assert not values


def test_where_random_maps_win(saved):
    better = {row["column"]: row["better"] for row in rows(saved / "table.csv")}
    values = {}
    for row in rows(saved / "values.csv"):
        key = row["measure"], row["method"]
        values.setdefault(key, {})[row["image"]] = float(row["value"])
    _, *shown = tables((saved / "report.html").read_text())["random-wins"]
    assert len(shown) == 2 * 3 and any(count[0] for _, _, count, _ in shown)
    for column, method, count, names in shown:
        ours, theirs = values[column, method], values[column, "random"]
        sign = 1 if better[column] == "high" else -1
        lost = [image for image in ours if sign * (ours[image] - theirs[image]) <= 0]
        assert count == (len(lost), f"{len(lost)}/3") and names == ", ".join(lost)


def test_stability_and_purification_are_those_of_the_json(saved):
    found = json.loads((saved / "faithfulness.json").read_text())
    page = tables((saved / "report.html").read_text())
    _, *shown = page["stability"]
    assert len(shown) == len(found["stability"]) > 3
    for row, one in zip(shown, found["stability"], strict=True):
        values = [cell[0] for cell in row[2:5]]
        assert [*row[:2], *values] == [
            one[key] for key in ("column", "changed", "spread", "shift", "order")
        ]
    purified = found["purification"]
    shown = {method: (auroc[0], gain[0]) for method, auroc, gain in page["purification"][1:]}
    assert shown == {m: (purified["auroc"][m], purified["gain"][m]) for m in purified["auroc"]}
    assert {row[0]: row[1][0] for row in page["agreement"][1:]} == purified["agreement"]


def test_curves_are_those_of_the_csv(saved):
    html = (saved / "report.html").read_text()
    points = rows(saved / "curves.csv")
    for title in ("deletion[steps=4]", "insertion[steps=4]"):
        mine = [row for row in points if row["measure"] == title]
        (drawing,) = re.findall(
            rf"<svg((?:(?!<svg).)*)</svg><figcaption>{re.escape(title)}</", html, re.S
        )
        drawn = dict(
            re.findall(r'<title>(\w+)</title><polyline class="curve"[^>]* points="(.*?)"', drawing)
        )
        styles = re.findall(r'"curve" style="--colour:(#[0-9A-F]{6}(?:;[^"]+)?)"', drawing)
        assert len({*styles}) == 4
        ticks = re.findall(r'y="([\d.]+)" class="end">([-\d.]+)<', drawing)
        levels, labels = np.array(ticks, float).T
        scale = np.polyfit(levels - 4, labels, 1)
        assert list(drawn) == ["banzhaf", "sobel", "mine", "random"]
        for method, line in drawn.items():
            x, y = np.array([point.split(",") for point in line.split()], float).T
            wanted = [row for row in mine if row["method"] == method]
            place = [float(row["x"]) / float(mine[-1]["x"]) for row in wanted]
            value = [float(row["mean"]) for row in wanted]
            np.testing.assert_allclose((x - LEFT) / WIDTH, place, atol=0.001)
            np.testing.assert_allclose(np.polyval(scale, y), value, atol=0.001)


def pictures(html):
    """What each slider compares: two pictures."""
    found = re.findall(r'<div class="compare"><div>(.*?)</div>', html)
    return [
        [
            np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).astype(int)
            for content in re.findall('base64,([^"]+)', one)
        ]
        for one in found
    ]


def test_maps_lie_on_whole_photographs(saved):
    html = (saved / "report.html").read_text()
    shown = pictures(html)
    assert len(shown) == 3 * 4 and "The first 3 of 3 images" in html
    assert "1 of 4 images left out" in html and "1b.png" in html
    for photograph, above in shown:
        assert photograph.shape == above.shape == (SIDE, WIDE, 3)
    for _, mine in shown[2::4]:
        light = mine.sum(axis=2)
        assert light[3:7, 9:13].min() > light[10:15, 8:20].max() + 100  # the red square
        assert abs(mine[4:12, :3] - 120).max() < 60  # the photograph itself
    sources = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')\s>]+)', html)
    assert sources and all(source.startswith("data:image/jpeg") for source in sources)


def test_maps_of_an_earlier_run_are_computed_again_and_few(tmp_path, monkeypatch):
    photos, settings = folder_of_photos(tmp_path / "photos"), {"suite": None, "stability": False}
    settings |= {"store": tmp_path, "measures": MEASURES[:1]}
    whole = measured(photos, **settings).save(tmp_path / "whole")
    assert len(pictures((whole / "report.html").read_text())) == 3 * 4
    again = measured(photos, **settings).save(tmp_path / "again")
    assert (again / "report.html").read_bytes() == (whole / "report.html").read_bytes()
    monkeypatch.setattr(flow, "IN_PAGE", 11)
    found = measured(photos, **settings)
    assert [subject.id for subject in found.shown] == ["0.png", "1.png"]
    html = (found.save(tmp_path / "few") / "report.html").read_text()
    assert len(pictures(html)) == 2 * 4 and "The first 2 of 3 images" in html
    for name in ("0.png", "1.png"):  # gone since: what the model saw is left
        (photos / name).unlink()
    html = (found.save(tmp_path / "gone") / "report.html").read_text()
    assert {one.shape for pair in pictures(html) for one in pair} == {(SIDE, SIDE, 3)}


def test_empty_cells_are_empty():
    assert tables(table(["n"], [[Number(None, "")]], "t"))["t"][1] == [""]


COLUMN = """
return [...document.querySelectorAll("#summary tbody tr")]
  .map((row) => row.cells[arguments[0]].textContent)
"""


def test_a_browser_sorts_it_and_shows_maps(browser, saved):
    browser.get((saved / "report.html").as_uri())
    heads = browser.find_elements("css selector", "#summary th")
    heads[-1].click()
    down = browser.execute_script(COLUMN, len(heads) - 1)
    assert down[2:] == ["", ""] and float(down[0].split()[0]) >= float(down[1].split()[0])
    heads[-1].click()
    assert browser.execute_script(COLUMN, len(heads) - 1) == [down[1], down[0], "", ""]
    seen = "return getComputedStyle(document.querySelectorAll('.compare img')[1]).opacity"
    browser.find_element("css selector", ".compare input").send_keys("\ue010")  # End
    assert browser.execute_script(seen) == "1"
    loaded = "return [...document.images].filter((one) => one.naturalWidth > 0).length"
    assert browser.execute_script(loaded) == 3 * 4 * 2
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
