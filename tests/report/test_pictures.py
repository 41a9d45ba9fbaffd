"""What the pictures hold, pixel by pixel."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

from jaxood.errors import UsageError
from jaxood.report.figures import figure_image
from jaxood.report.pictures import blended, grid_figure, laid_over, palette, shortened, write_png


def test_palette_is_matplotlibs():
    colours = palette("viridis")
    for level in (0, 100, 255):
        expected = matplotlib.colormaps["viridis"](level)[:3]
        np.testing.assert_allclose(colours[level], 255 * np.array(expected), atol=0.5)
    with pytest.raises(UsageError, match="colours: got 'viridiss'.*Did you mean viridis"):
        palette("viridiss")


def test_default_palette_grows_lighter():
    lightness = palette() @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > -0.5).all() and np.ptp(lightness) > 200


def test_overlay_blends():
    image = np.full((2, 2, 3), 100, np.uint8)
    heat = np.array([[0, 255], [7, 7]], np.uint8)
    colours = np.zeros((256, 3), np.uint8)
    colours[255], colours[7] = (255, 0, 50), (10, 20, 30)
    blend = blended(image, colours[heat], 0.25)
    np.testing.assert_array_equal(blend[0], [[75, 75, 75], [139, 75, 88]])
    np.testing.assert_array_equal(blend[1, 0], [78, 80, 82])
    np.testing.assert_array_equal(blended(image, colours[heat], 1.0), colours[heat])


def test_png_keeps_every_pixel(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_png(tmp_path / "new" / "folder" / "picture.png", image)
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "new" / "folder" / "picture.png")), image
    )


def test_grid_shows_every_picture_once_in_its_row_and_column():
    """Flat colours: each is found as a block, rows are images, columns methods."""
    rng = np.random.default_rng(1)
    flat = rng.choice(np.arange(16, 250), (3, 3, 3), replace=False).astype(np.uint8)
    pictures = np.broadcast_to(flat[:, :, None, None], (3, 3, 20, 30, 3))
    captions = ["cat\n90.0 %", "dog\n80.0 %", "owl\n70.0 %"]
    rows, one, two = (list(pictures[:, column]) for column in range(3))
    figure = grid_figure(rows, captions, {"one": one, "two": two})
    drawn = np.asarray(figure_image(figure).convert("RGB"))
    centres = np.zeros((3, 3, 2))
    for row in range(3):
        for column in range(3):
            found = np.argwhere((drawn == flat[row, column]).all(-1))
            height, width = np.ptp(found, axis=0) + 1
            assert len(found) == height * width > 10_000
            assert width / height == pytest.approx(1.5, abs=0.06)
            centres[row, column] = found.mean(0)
    assert (np.diff(centres[:, :, 0], axis=0) > 100).all()
    assert (np.diff(centres[:, :, 1], axis=1) > 100).all()
    assert np.ptp(centres[:, :, 0], axis=1).max() < 1 and np.ptp(centres[:, :, 1], axis=0).max() < 1
    left = drawn[:, : int(centres[:, 0, 1].min()) - 130]
    assert (left.min(-1) < 100).sum() > 200  # the captions


def test_a_grid_is_as_wide_as_a_page():
    pictures = [np.zeros((20, 30, 3), np.uint8), np.zeros((40, 30, 3), np.uint8)]
    names = [f"map {number}" for number in range(9)]
    figure = grid_figure(pictures, ["cat", "dog"], dict.fromkeys(names, pictures))
    shown = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in shown] == ["image", *names] * 2
    boxes = [axes.get_position() for axes in shown]
    assert len({round(box.x0 + box.x1, 3) for box in boxes}) == 6 and figure.get_figwidth() < 14
    overlaps = [one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[i + 1 :]]
    assert not any(overlaps)


def test_whole_pictures_have_colours_inside_alone_and_a_frame():
    image = np.random.default_rng(2).integers(1, 255, (120, 200, 3), dtype=np.uint8)
    above = np.full((100, 100, 3), 40, np.uint8)
    drawn = laid_over(image, (slice(10, 110), slice(50, 150)), above, 0.25)
    expected = np.round(0.75 * image[10:110, 50:150] + 10)
    np.testing.assert_array_equal(drawn[10:110, 50:150], expected)
    assert (drawn[9, 49:151] == 255).all() and (drawn[110, 49:151] == 255).all()
    assert (drawn[8:112, 48] == 0).all() and (drawn[8:112, 151] == 0).all()
    outside = np.ones((120, 200), bool)
    outside[8:112, 48:152] = False
    np.testing.assert_array_equal(drawn[outside], image[outside])
    same = laid_over(image, (slice(0, 120), slice(0, 200)), image, 0.5)
    np.testing.assert_array_equal(same, image)  # nothing is cut off: no frame


def test_pictures_of_a_grid_keep_their_shape_and_clear_of_long_captions():
    images = [np.full((high, 100, 3), 90, np.uint8) for high in (10, 100, 300)]
    captions = ["a\n" * 9 + "name"] * 3
    names = [f"smoothgrad[of=guided-backprop,samples={number}]" for number in range(19)]
    figure = grid_figure(images, captions, dict.fromkeys(names, images))
    image = figure_image(figure)  # places are known when it is drawn
    width, height = image.size
    shown = [axes for axes in figure.axes if axes.get_images()]
    assert len(shown) == 3 * 20
    for axes, wanted in zip(shown, [0.1] * 20 + [1.0] * 20 + [3.0] * 20, strict=True):
        box = axes.get_position()
        assert height * box.height / (width * box.width) == pytest.approx(wanted, rel=0.02)
    texts = [text.get_window_extent() for text in figure.texts]
    titles = [axes.title.get_window_extent() for axes in shown]
    for boxes in (texts, titles):
        overlaps = [one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i]]
        assert not any(overlaps)
    assert all(box.x0 > 0 and box.y0 > 0 for box in texts)


def test_names_of_files_are_shown_as_they_are():
    """Neither as formulas, nor with a warning for letters that the font lacks."""
    image = [np.zeros((4, 4, 3), np.uint8)]
    figure = grid_figure(image, ["cost $5_{$6\n日本.png"], {"$x_{$": image})
    figure_image(figure)
    assert figure.texts[0].get_text() == "cost $5_{$6\n日本.png"


def test_long_names_lose_their_middle():
    assert shortened("a name", 6) == "a name"
    assert shortened("0123456789.png", 8) == "0123…png"
