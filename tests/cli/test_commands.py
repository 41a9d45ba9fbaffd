"""What all commands share: a file that repeats a run, JSON, progress, completion."""

import io
import json
import shutil
import subprocess
import sys
import tomllib

import pytest

from jaxood.cli import COMMANDS, build_parser, main
from jaxood.cli import values as progress
from jaxood.cli.config import arguments_of


def evaluate(cache, output, *arguments):
    options = ["--cache-dir", str(cache), "--output", str(output), *arguments]
    return main("evaluate", ["--method", "react+knn", "msp", "--set", "knn.k=7", *options])


@pytest.mark.long
def test_a_run_is_repeated_from_its_file(cache, tmp_path, capsys):
    assert evaluate(cache, tmp_path / "one", "--seed", "3") == 0
    file = tmp_path / "one" / "command.toml"
    told = tomllib.loads(file.read_text())
    assert told["command"] == "evaluate"
    assert told["options"]["method"] == ["react+knn", "msp"]
    assert told["options"]["set"] == ["knn.k=7"] and told["options"]["seed"] == 3
    again = tmp_path / "two"
    assert main("run", [str(file), "--output", str(again)]) == 0
    scores = [(folder / "scores.npz").read_bytes() for folder in (tmp_path / "one", again)]
    assert scores[0] == scores[1]
    assert tomllib.loads((again / "command.toml").read_text())["options"]["output"] == str(again)
    assert main("run", [str(file), "--seed", "4"]) == 0  # into the first folder
    assert (tmp_path / "one" / "earlier-1" / "command.toml").read_bytes() != file.read_bytes()


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "run"])
def test_options_come_back_as_they_were_typed(command):
    """Values that begin with a dash, lists, repeated options and flags."""
    parser = build_parser(command, command)
    typed, options = [], {}
    for action in parser._actions:
        name = action.option_strings[-1] if action.option_strings else action.dest
        if action.dest == "help":
            continue
        if action.nargs == 0:
            values, typed = True, [*typed, name]
        else:
            value = list(action.choices)[0] if action.choices else "1"
            several = action.nargs not in (None, "?") or type(action).__name__ == "_AppendAction"
            count = action.nargs if isinstance(action.nargs, int) else 2
            values = [value] * count if several else value
            shown = values if several else [values]
            if type(action).__name__ == "_AppendAction":
                typed += [f"{name}={one}" for one in shown]
            else:
                typed += [name, *shown] if action.option_strings else shown
        options[name.lstrip("-")] = values
    assert parser.parse_args(arguments_of(options, parser)) == parser.parse_args(typed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("command = ", "wanted TOML"),
        ("[options]", 'wanted command = "NAME"'),
        ('command = "evaluate"\nmore = 1', "with more"),
        ('command = "evaluat"', "Did you mean evaluate"),
        ('command = "run"', "wanted one of"),
        ('command = "evaluate"\n[options]\nmethods = "msp"', "Did you mean method"),
        ('command = "evaluate"\n[options]\nseed = [1, 2]', "wanted one text or number"),
        ('command = "evaluate"\n[options]\nquiet = 1', "wanted true or false"),
        ('command = "evaluate"\n[options]\nseed = -1', "seed: got -1"),
        ('command = "evaluate"\n[options]\nmethod = [{a = 1}]', "wanted texts or numbers"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, capsys, content, message):
    file = tmp_path / "command.toml"
    if content is not None:
        file.write_text(content)
    assert main("run", [str(file)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_json_is_what_is_printed(cache, tmp_path, capsys):
    assert evaluate(cache, tmp_path, "--json", "--quiet") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((tmp_path / "metrics.json").read_text())
    assert printed.err == ""
    for command, first in (("methods", "sfp"), ("models", "mobilenet_v2"), ("report", "knn")):
        arguments = [str(tmp_path)] if command == "report" else []
        assert main(command, [*arguments, "--json"]) == 0
        text = capsys.readouterr().out
        assert first in text and json.loads(text)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Terminal(), {}, True),
        (io.StringIO(), {}, False),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),  # as if it were not set
        (Terminal(), {"TERM": "dumb"}, False),
    ],
)
def test_bold_letters_only_where_they_are_wanted(monkeypatch, stream, environment, expected):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert progress.is_terminal(stream) == expected


@pytest.mark.long
def test_the_best_is_bold_on_a_terminal(monkeypatch, cache, tmp_path, capsys):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert evaluate(cache, tmp_path, "--quiet") == 0
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout", Terminal())
    assert evaluate(cache, tmp_path, "--quiet") == 0
    assert sys.stdout.getvalue().count("\x1b[1m") == 2 * 4  # AUROC and FPR95 of 3 sets and the mean


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def test_without_a_terminal_a_line_now_and_then(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    update = progress.progress_bar("train")
    for second, done in ((0, 0), (10, 10), (40, 40), (50, 50), (80, 80), (81, 100), (82, 100)):
        clock.now = 100.0 + second
        update(done, 100)
    assert capsys.readouterr().err.splitlines() == [
        "train: 40 of 100 images, 1.0 a second, 60 s left",
        "train: 80 of 100 images, 1.0 a second, 20 s left",
        "train: 100 of 100 images, 1.2 a second",
    ]


def test_what_is_there_already_is_not_told(monkeypatch, capsys):
    Clock(monkeypatch)
    progress.progress_bar("train")(100, 100)
    assert capsys.readouterr().err == ""


def test_the_bar_moves_while_a_batch_takes_long(monkeypatch, capsys):
    monkeypatch.setattr(progress, "REDRAWN", 0.02)
    bar = progress._Bar("maps", " images")
    bar(0, 3)
    drawn = []
    bar._bar.refresh = lambda: drawn.append(1)
    import time

    until = time.time() + 5
    while len(drawn) < 3 and time.time() < until:
        time.sleep(0.01)
    assert len(drawn) >= 3
    bar(3, 3)
    assert bar._bar.disable


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_every_command(shell, capsys):
    assert main("completion", [shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS) and "ood-dir" in script


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["jaxood", "ev"], ["evaluate"]),
        (["jaxood", "fit", "--expo"], ["--export"]),
        (["jaxood", "evaluate", "--id"], ["--id-dir"]),
    ],
)
def test_bash_completes(capsys, words, expected):
    main("completion", ["bash"])
    script = capsys.readouterr().out
    shown = " ".join(words)
    asked = f"COMP_WORDS=({shown}); COMP_CWORD={len(words) - 1}; _jaxood; echo ${{COMPREPLY[*]}}"
    found = subprocess.run(["bash", "-c", f"{script}\n{asked}"], capture_output=True, text=True)
    assert found.stdout.split() == expected and found.stderr == ""
