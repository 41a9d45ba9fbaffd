"""report.html: its numbers are those of metrics.csv, it needs nothing from outside, it works."""

import csv
import re

import numpy as np
import pytest
from PIL import Image
from report_pages import tables

import jaxood
from jaxood.demo.digits import digits_weights
from jaxood.report.html import Number, image, page, table
from jaxood.report.plots import thinned
from jaxood.report.svg import MOST_POINTS, SIDE, TOP, histogram, roc


@pytest.fixture(scope="module")
def evaluated(cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    result = jaxood.evaluate(str(digits_weights(cache)), "digits", ["sfp", "knn"])
    return result.save(folder)


@pytest.fixture(scope="module")
def attributed(cache, tmp_path_factory):
    generator = np.random.default_rng(0)
    pictures = list(generator.integers(0, 256, (3, 12, 10, 3), dtype=np.uint8))
    model = jaxood.load_model(str(digits_weights(cache)))
    maps = jaxood.attribute(model, pictures, ["banzhaf", "grad-cam"])
    return maps.save(tmp_path_factory.mktemp("attributed"))


def test_every_number_is_that_of_the_csv(evaluated):
    with (evaluated / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"]]
    expected = {(row["method"], row["set"], row["metric"]): row for row in rows}
    head, *shown = tables((evaluated / "report.html").read_text())["metrics"]
    assert head[:2] == ["method", "OOD set"] and len(shown) == 3 * 3
    metrics = ("auroc", "fpr95", "aupr_in", "aupr_out", "dtacc")
    for method, name, *cells in shown:
        for metric, (value, text) in zip(metrics, cells, strict=True):
            row = expected.pop((method, name, metric))
            assert value == float(row["value"])
            percent = [100 * float(row[c]) for c in ("value", "low", "high") if row[c]]
            numbers = [float(number) for number in re.findall(r"-?[\d.]+", text)]
            assert numbers == pytest.approx(percent, abs=0.051)
    assert not expected


@pytest.mark.parametrize("name", ["evaluated", "attributed"])
def test_nothing_comes_from_outside(name, request):
    folder = request.getfixturevalue(name)
    html = (folder / "report.html").read_text()
    sources = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')\s>]+)', html)
    assert sources and all(source.startswith("data:image/jpeg") for source in sources)
    assert "default-src 'none'" in html and len(html) < 5_000_000


def test_names_are_text_and_nothing_else():
    html = page("<b>&", [table(["<i>", "n"], [["<script>x</script>", Number(1.0, "<u>")]], "t")])
    assert "<b>" not in html and "<i>" not in html and "<u>" not in html
    assert "<script>x" not in html and "&lt;script&gt;x" in html
    assert tables(html)["t"] == [["<i>", "n"], ["<script>x</script>", (1.0, "<u>")]]
    nasty = {"</title><b>": (np.arange(4.0), np.arange(4.0))}
    assert "</title><b>" not in roc(nasty) and "<b>" not in histogram(
        *nasty["</title><b>"], ("<b>",) * 2
    )


def test_a_thinned_curve_stays_the_curve():
    generator = np.random.default_rng(0)
    false = np.sort(np.concatenate([[0, 1], generator.uniform(size=50_000)]))
    true = np.sort(np.concatenate([[0, 1], generator.uniform(size=50_000) ** 0.2]))
    x, y = thinned(false, true, MOST_POINTS)
    assert len(x) <= MOST_POINTS and (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    np.testing.assert_allclose(np.interp(false, x, y), true, atol=0.01)
    short = np.array([0.0, 0.5, 1.0])
    assert thinned(short, short, MOST_POINTS)[0] is short


def test_bars_are_shares_of_images():
    known, foreign = np.repeat([0.0, 1.0], [3, 1]), np.ones(2)
    drawn = histogram(known, foreign, ("a", "b"))
    bars = re.findall(r'class="bars" style="[^"]+" points="([^"]+)"', drawn)
    tops = [[float(point.split(",")[1]) for point in points.split()] for points in bars]
    heights = [{round((TOP + SIDE - top) / SIDE, 3) for top in one} for one in tops]
    assert heights == [{0, 0.75, 0.25}, {0, 1}]


def test_pictures_are_small_jpegs():
    import base64
    import io

    shown = image(np.full((300, 600, 3), [255, 0, 0], np.uint8))
    content = base64.b64decode(re.search('base64,([^"]+)', shown)[1])
    with Image.open(io.BytesIO(content)) as found:
        assert found.size == (132, 66) and found.format == "JPEG"
        assert found.getpixel((50, 30))[0] > 240


COLUMN = """
return [...document.querySelectorAll("#metrics tbody tr")]
  .map((row) => row.cells[arguments[0]].textContent)
"""
LOADED = """
const images = [...document.images]
return images.every((image) => image.complete && image.naturalWidth > 0) && images.length
"""


def column(browser, index):
    return browser.execute_script(COLUMN, index)


def test_a_browser_shows_and_sorts_it(browser, evaluated):
    browser.get((evaluated / "report.html").as_uri())
    assert browser.title == "digits_cnn.digits on digits"
    assert browser.execute_script(LOADED) == 4 * 12 * 2
    heads = browser.find_elements("css selector", "#metrics th")
    heads[3].click()
    values = [float(text.split()[0]) for text in column(browser, 3)]
    assert values == sorted(values, reverse=True) and len(values) == 9
    heads[3].click()
    assert [float(text.split()[0]) for text in column(browser, 3)] == sorted(values)
    heads[0].click()
    assert sorted(column(browser, 0)) in (column(browser, 0), column(browser, 0)[::-1])
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_a_slider_shows_the_map_through_the_picture(browser, attributed):
    browser.get((attributed / "report.html").as_uri())
    assert len(browser.find_elements("css selector", ".compare")) == 3 * 2
    (slider, *_) = browser.find_elements("css selector", ".compare input")
    seen = "return getComputedStyle(document.querySelectorAll('.compare img')[1]).opacity"
    assert browser.execute_script(seen) == "0.6"
    slider.send_keys("\ue011")  # Home
    assert browser.execute_script(seen) == "0"
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
