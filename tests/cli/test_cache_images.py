"""`--cache-images`: one command decodes, the others read what it kept."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxood.cli import main
from jaxood.data import files


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    generator = np.random.default_rng(0)
    for name in ("known", "foreign"):
        (root / name).mkdir()
        for index in range(9):
            picture = generator.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(picture).save(root / name / f"{index}.png")
    (root / "foreign" / "broken.png").write_bytes(b"no picture")
    return root


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that are decoded."""
    names, read = [], files.read

    def noted(path, preprocessing):
        names.append(path.rpartition("/")[2])
        return read(path, preprocessing)

    monkeypatch.setattr(files, "read", noted)
    return names


def test_commands_decode_each_image_once(cache, folders, tmp_path, decoded, caplog):
    kept = ["--cache-images", str(tmp_path / "kept"), "--model", "digits_cnn"]
    kept += ["--cache-dir", str(cache)]
    known, foreign = str(folders / "known"), str(folders / "foreign")
    data = ["--id-dir", known, "--ood-dir", foreign]

    def evaluate(name, *more):
        assert main("evaluate", [*data, "--output", str(tmp_path / name), *more]) == 0
        arrays = np.load(tmp_path / name / "scores.npz")
        return {key: arrays[key] for key in arrays.files}

    expected = evaluate("plain", *kept[2:], "--method", "msp")
    for_pictures = len(decoded) - 19  # of the report
    decoded.clear()
    first = evaluate("first", *kept, "--method", "msp")
    assert len(decoded) == 19 + for_pictures
    (line,) = caplog.messages
    assert line.startswith(f"0.0 MB of images will be kept in {tmp_path / 'kept'}, with ")
    decoded.clear()
    second = evaluate("second", *kept, "--method", "msp", "sfp")
    assert len(decoded) == for_pictures
    decoded.clear()
    for key, array in expected.items():
        np.testing.assert_array_equal(first[key], array)
        np.testing.assert_array_equal(second[key], array)
    detector = str(tmp_path / "detector.safetensors")
    fit = ["--id-dir", known, "--method", "msp", "--output", detector]
    assert main("fit", [*fit, *kept]) == 0
    assert decoded == []


@pytest.mark.parametrize("command", ["evaluate", "fit"])
def test_a_disk_without_room_is_one_line(cache, folders, tmp_path, capsys, monkeypatch, command):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    known, foreign = str(folders / "known"), str(folders / "foreign")
    images = {
        "evaluate": ["--id-dir", known, "--ood-dir", foreign],
        "fit": ["--id-dir", known, "--method", "msp"],
    }[command]
    kept = tmp_path / "kept"
    asked = ["--model", "digits_cnn", "--cache-dir", str(cache), "--cache-images", str(kept)]
    assert main(command, [*images, *asked, "--output", str(tmp_path / "out" / "file")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"jaxood {command}: --cache-images: got {kept}, with 0.0 MB free")
    assert not kept.exists()
