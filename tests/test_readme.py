"""What the README and the documents tell is true: their code runs as it stands there."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxood
from jaxood.cli import COMMANDS, build_parser, main

COMMAND = r"^(?:jaxood|python scripts/)(\S+)(.*(?:\\\n.*)*)"  # with its options
HOME = Path(__file__).parent.parent
README = (HOME / "README.md").read_text()
DOCS = "".join((HOME / "docs" / name).read_text() for name in ("own-parts.md", "production.md"))


def block(first_line: str) -> str:
    (found,) = re.findall(rf"```python\n({re.escape(first_line)}\n.*?)```", DOCS, re.S)
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name in ("known", "foreign"):
        (tmp_path / name).mkdir()
        for index in range(3):
            picture = generator.integers(0, 256, (260, 300, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / name / f"{index}.png")
    for module in ("mynet", "mydetector"):
        (tmp_path / f"{module}.py").write_text(block(f"# {module}.py"))
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


def test_a_model_of_ones_own(folder, capsys):
    (command,) = re.findall(r"jaxood evaluate (--model mynet.*)", DOCS)
    assert main("evaluate", [*command.split(), "--output", "out"]) == 0
    assert "vs energy" in capsys.readouterr().out


def test_a_detector_of_ones_own(folder, cache, capsys):
    (command,) = re.findall(r"jaxood evaluate (--method mydetector.*)", DOCS)
    assert main("evaluate", [*command.split(), "--cache-dir", str(cache), "--output", "out"]) == 0
    assert "vs mydetector:Margin" in capsys.readouterr().out
    sys.path.insert(0, "")
    from mydetector import Margin

    sys.path.remove("")
    jaxood.check_detector(Margin())


def test_a_suite_of_ones_own(folder):
    (table,) = re.findall(r"```toml\n(.*?)```", (HOME / "docs/papers.md").read_text(), re.S)
    (folder / "mine.toml").write_text(table)
    (folder / "lists").mkdir()
    (folder / "lists/test.csv").write_text("path,label\n0.png,3\n1.png,9\n")
    (folder / "lists/val.txt").write_text("2.png 7 \n")
    (folder / "train").mkdir()
    links = {"train/4": "../known", "images": "known", "sketches": "foreign", "corrupted": "known"}
    for link, target in links.items():
        (folder / link).symlink_to(target)
    suite = jaxood.suite("mine.toml")
    assert suite.classes == 10 and suite.id_test.labels.tolist() == [3, 9]
    assert suite.groups == {"far": ("sketches",)} and suite.train.labels.tolist() == [4, 4, 4]
    checked = jaxood.check_suite("mine.toml").sets
    problems = {entry.key: entry.problem for entry in checked if entry.problem}
    assert problems == {"ood.sketches": "3 images instead of 5,000"}


def test_every_command_and_option_that_is_told_exists():
    for command, line in re.findall(COMMAND, README, re.M):
        name = command.strip().removesuffix(".py")
        if name not in COMMANDS:
            continue
        known = {
            option
            for action in build_parser(name, name)._actions
            for option in action.option_strings
        }
        told = set(re.findall(r"(?<!\S)--[a-z-]+", line))
        assert told <= known, (name, told - known)
