"""What the pictures hold, pixel by pixel."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

from jaxood.errors import UsageError
from jaxood.report.figures import figure_image
from jaxood.report.pictures import grid_figure, overlay, palette, write_png


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
    blend = overlay(image, heat, colours, 0.25)
    np.testing.assert_array_equal(blend[0], [[75, 75, 75], [139, 75, 88]])
    np.testing.assert_array_equal(blend[1, 0], [78, 80, 82])
    np.testing.assert_array_equal(overlay(image, heat, colours, 1.0), colours[heat])


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
    figure = grid_figure(pictures[:, 0], captions, {"one": pictures[:, 1], "two": pictures[:, 2]})
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
    pictures = np.zeros((2, 20, 30, 3), np.uint8)
    names = [f"map {number}" for number in range(9)]
    figure = grid_figure(pictures, ["cat", "dog"], dict.fromkeys(names, pictures))
    shown = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in shown] == ["image", *names] * 2
    boxes = [axes.get_position() for axes in shown]
    assert len({round(box.x0, 3) for box in boxes}) == 6 and figure.get_figwidth() < 14
    overlaps = [one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[i + 1 :]]
    assert not any(overlaps)
