"""What a wheel holds is all that commands need: they run far from the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import jaxood

HOME = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with what a wheel of this checkout installs."""
    source = tmp_path_factory.mktemp("wheel") / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(HOME / name, source)
    shutil.copytree(HOME / "jaxood", source / "jaxood")
    found = source.parent / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", found, source]
    subprocess.run(install, check=True, capture_output=True)
    return found


@pytest.fixture
def run(site, cache, tmp_path):
    def run(*arguments):
        """The installed command, from a folder that has nothing else of this project."""
        command = [sys.executable, site / "bin" / "jaxood", *arguments]
        environment = os.environ | {"PYTHONPATH": str(site), "JAXOOD_CACHE": str(cache)}
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run


@pytest.mark.long
def test_commands_run_from_a_wheel(run, site, tmp_path):
    assert run("--version") == f"jaxood {jaxood.__version__}\n"
    assert "openood-imagenet200" in run("suites")
    assert "resnet50" in run("models")
    assert "complete" in run("completion", "bash")
    assert "digits 6-9" in run("evaluate", "--method", "sfp", "--output", "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<style>" in page and "<script>" in page
    assert "sfp" in run("report", "out")
    assert (site / "jaxood" / "py.typed").exists()
