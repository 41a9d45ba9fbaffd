"""The notebooks of the documents: what they show is what running them gives."""

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def outputs(cells):
    """Of each code cell, what it printed without its numbers, and what kinds of things it drew.

    Words are in order of the alphabet: who comes first may be another one with other numbers.
    """
    found = []
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        told = [output for output in cell["outputs"] if output.get("name") != "stderr"]
        text = " ".join("".join(output.get("text", "")) for output in told)
        words = sorted(re.sub(r"[\d.,-]*\d", "#", text).split())
        found.append((words, [sorted(output["data"]) for output in told if "data" in output]))
    return found


def test_there_are_some():
    assert len(NOTEBOOKS) == 2


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_executed_small_and_in_the_site(notebook):
    assert notebook.stat().st_size < 300_000
    cells = json.loads(notebook.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    assert all(cell["outputs"] for cell in code)
    assert f"notebooks/{notebook.stem}.md" in (DOCS.parent / "mkdocs.yml").read_text()
    told = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    for link in re.findall(r"\]\((\.\./[^)#:]+)\)", told):
        assert (notebook.parent / link).exists(), link


@pytest.mark.long
@pytest.mark.filterwarnings("default")  # those of Jupyter are not ours
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(notebook, cache, tmp_path, monkeypatch):
    """In a kernel of their own. Numbers may differ between machines; the rest may not."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("JAXOOD_CACHE", str(cache))
    shown = nbformat.read(notebook, 4)
    again = nbformat.read(notebook, 4)
    how = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(again, timeout=600, resources=how).execute()
    assert outputs(again.cells) == outputs(shown.cells)
