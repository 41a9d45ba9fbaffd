"""Every option of every command against values that make no sense: one line, never a traceback."""

import functools
import itertools
import random

import numpy as np
import pytest
from PIL import Image
from processes import untrained

from jaxood.cli import COMMANDS, build_parser, main
from jaxood.flows import contours, sources
from jaxood.models.loading import load_weights
from jaxood.runner.runner import Runner

WORDS = """
- -- 0 -1 1 7 0.5 1.5 1e-9 1e12 1e400 nan inf -inf 99999999999999999999999 0x10 1_000 \u0663
-99999999999999999999999 none None True auto . .. /proc/nothing /dev/null /dev/full ~ * $HOME
os:system os.path:join nothing:at_all : a: :b jaxood:evaluate a=b = {} () [] [[]] ' " knn sfp + knn+
+knn react+react+energy knn+knn sfp[by= sfp[by=x] knn[k=0] knn[k=-1] knn[k=nan] knn[k=5 knn]k=5[
knn.k=0 knn.k=1e9 knn.k=\u0663 knn.k knn.=5 .k=5 knn.k=1,2 energy.temperature=0 digits_cnn resnet50
resnet50. digits photos bfloat16 float64 linear \U0001f642
"""
VALUES = (*WORDS.split(), "", " ", "a" * 300, "a/" * 2000, "\0", "\n", "\x1b[31mred")


class Reached(BaseException):
    """The arguments were taken: what is computed then is not what is tested here."""


@pytest.fixture
def base(tmp_path, monkeypatch):
    """Arguments with which each command would run."""

    def reached(*args, **more):
        raise Reached

    monkeypatch.setattr(contours, "train", reached)
    monkeypatch.setattr(sources, "load_weights", functools.lru_cache(load_weights))
    for name in ("extract", "stream"):
        monkeypatch.setattr(Runner, name, reached)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # --max-pixels stays
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        image = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "photos" / f"{seed}.png")
    weights = ["--weights", str(untrained(tmp_path / "weights.safetensors"))]
    return {
        "evaluate": [*weights, "--id-dir", "photos", "--ood-dir", "x=photos", "--output", "out"],
        "attribute": ["photos", *weights, "--output", "out"],
        "faithfulness": ["photos", *weights, "--output", "out"],
        "road": ["photos", *weights, "--output", "out"],
        "fit": [*weights, "--train-dir", "photos", "--id-dir", "photos", "--output", "out/file"],
        "detect": ["photos", *weights],
        "head": [*weights, "--train-dir", "photos", "--output", "out/file"],
        "contours": ["--output", "out"],
        "convert": ["--arch", "resnet18", "--checkpoint", "none.pth", "--output", "out/file"],
        "study": [*weights, "--output", "out"],
        "report": ["photos"],
        "models": [],
        "suites": [],
        "methods": [],
        "run": ["photos"],
        "completion": ["bash"],
    }


def calls(base):
    """Every option of every command with every value; positionals too."""
    for command in COMMANDS:
        for action in build_parser(command, command)._actions:
            if action.dest == "help":
                continue
            for value in VALUES:
                arguments = [*action.option_strings[-1:], value]
                if action.nargs == 0:
                    arguments = [*action.option_strings[-1:], *([value] if value else [])]
                yield command, [*base[command], *arguments]


def fault(capsys, command, arguments):
    """What is wrong with the answer; None where it is one line, or the arguments were taken."""
    capsys.readouterr()
    try:
        code = main(command, arguments)
    except Reached:
        return None
    except SystemExit as done:
        code = done.code
    except Exception as error:
        return f"{command} {arguments}: {error!r}"
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith(f"jaxood {command}: ")]
    right = code in (0, 1, 2) and len(lines) == (0 if code == 0 else 1) and "\x1b" not in error
    return None if right else f"{command} {arguments}: {code} {error}"


def test_a_sample_of_wrong_arguments(base, capsys):
    chosen = random.Random(0).sample(list(calls(base)), 150)
    assert not [wrong for call in chosen if (wrong := fault(capsys, *call))]


@pytest.mark.long
def test_every_option_with_every_wrong_value(base, capsys):
    chosen = list(calls(base))
    assert len(chosen) > 5000
    assert not [wrong for call in chosen if (wrong := fault(capsys, *call))]


def test_two_options_at_once(base, capsys):
    options = ["--seed", "--batch-size", "--target", "--coalitions"]
    for one, two in itertools.combinations(options, 2):
        arguments = [*base["attribute"], one, "-1", two, "1e12"]
        assert fault(capsys, "attribute", arguments) is None
