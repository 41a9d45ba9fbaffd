"""What the documents say is true: their Python runs, their commands have the options they name."""

import importlib.util
import io
import os
import re
import shlex
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxood
from jaxood.cli import COMMANDS, build_parser

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)


def blocks(page, pattern):
    return [found for found in pattern.findall(page.read_text()) if "--8<--" not in found]


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_runs(page, cache, tmp_path, monkeypatch, capsys):
    """Block after block, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXOOD_CACHE", str(cache))
    generator = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for index in range(3):
        picture = generator.integers(0, 256, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{index}.png")
    module = types.ModuleType("page")  # where names of the page's classes are looked up
    monkeypatch.setitem(sys.modules, "page", module)
    for block in blocks(page, PYTHON):
        exec(compile(block, page.name, "exec"), vars(module))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_parse(page):
    for block in blocks(page, SHELL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and "=" in words[0]:  # settings of the environment
                words.pop(0)
            if words[:1] == ["jaxood"]:
                assert words[1] in COMMANDS, line
                build_parser(words[1], "jaxood").parse_args(words[2:])
            else:
                assert words == [] or words[0] in ("pip", "curl", "uvicorn"), line


def test_there_are_pages_with_code():
    assert sum(len(blocks(page, PYTHON)) for page in PAGES) > 10
    assert sum(len(blocks(page, SHELL)) for page in PAGES) > 10


def hooks():
    """The module that makes pages for mkdocs."""
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_api_page_shows_each_public_name_as_itself():
    """Not the module of the same name, such as `jaxood.conversion.convert`."""
    shown = re.findall(r"^::: (\S+)\n.*\n +heading: jaxood\.(\w+)$", hooks().api(), re.M)
    assert sorted(name for _, name in shown) == sorted({*jaxood.__all__} - {"__version__"})
    for home, name in shown:
        module, _, attribute = home.rpartition(".")
        assert getattr(importlib.import_module(module), attribute) is getattr(jaxood, name)


def test_notebooks_become_pages():
    pages = hooks().notebook_page(DOCS / "notebooks" / "digits.ipynb")
    text = pages.pop("notebooks/digits.md")
    assert text.startswith("# Digits from end to end\n") and "[digits.ipynb](digits.ipynb)" in text
    assert '```python\nimport jaxood\n\nmodel = jaxood.load_model("digits_cnn")' in text
    assert "```text\nin distribution: 758 to fit on, 325 to test\n" in text
    assert len(pages) == 2  # pictures
    for path, content in pages.items():
        assert f"]({Path(path).name})" in text
        assert Image.open(io.BytesIO(content)).format == "PNG"


def test_links_lead_to_what_is_there():
    """Of pages to pages; the generated ones are known by the registries."""
    from jaxood.flows.listings import list_attributions, list_detectors, list_measures

    generated = {f"notebooks/{path.stem}.md" for path in DOCS.glob("notebooks/*.ipynb")}
    generated |= {"api.md", "detectors/index.md", "attributions/index.md", "measures/index.md"}
    generated |= {f"detectors/{entry.name}.md" for entry in list_detectors()}
    generated |= {f"attributions/{entry.name}.md" for entry in list_attributions()}
    generated |= {f"measures/{entry.name}.md" for entry in list_measures()}
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert link in generated or (DOCS / link).exists(), f"{page.name}: {link}"
    assert os.path.getsize(DOCS / "pictures" / "report.png") < 400_000
