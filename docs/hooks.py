"""Pages made from what the package says of itself, and from notebooks as they were executed."""

import base64
import inspect
import json
import re
import textwrap
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import jaxood
from jaxood.attribution.registry import ATTRIBUTIONS
from jaxood.detectors.registry import DETECTORS, TRANSFORMS, VIEWS
from jaxood.flows.listings import Entry, list_attributions, list_detectors, list_measures
from jaxood.perturbation.measures import MEASURES

KINDS = {
    "view": "Views",
    "transform": "Transforms",
    "score": "Scores",
}
PARTS = DETECTORS | TRANSFORMS | VIEWS


def on_files(files: Files, config: MkDocsConfig) -> Files:
    detectors, attributions, measures = list_detectors(), list_attributions(), list_measures()
    pages = {"api.md": api(), "detectors/index.md": detector_index(detectors)}
    pages["attributions/index.md"] = attribution_index(attributions)
    pages["measures/index.md"] = measure_index(measures)
    pages |= {f"measures/{e.name}.md": part_page(e, MEASURES[e.name]) for e in measures}
    pages |= {f"detectors/{e.name}.md": part_page(e, PARTS[e.name]) for e in detectors}
    pages |= {f"attributions/{e.name}.md": part_page(e, ATTRIBUTIONS[e.name]) for e in attributions}
    contents: dict[str, str | bytes] = dict(pages)
    for notebook in sorted(Path(config.docs_dir).glob("notebooks/*.ipynb")):
        contents |= notebook_page(notebook)
    for path, content in contents.items():
        files.append(File.generated(config, path, content=content))
    return files


def notebook_page(notebook: Path) -> dict[str, str | bytes]:
    """Its cells and what they printed, as Markdown, and the pictures beside it."""
    parts, pictures = [], {}
    for number, cell in enumerate(json.loads(notebook.read_text())["cells"]):
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else fenced(source, "python"))
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                name = f"{notebook.stem}-{number}.png"
                pictures[f"notebooks/{name}"] = base64.b64decode(output["data"]["image/png"])
                parts.append(f"![what the code above draws]({name})")
            elif output["output_type"] == "stream":
                parts.append(fenced("".join(output["text"]).strip("\n")))
    title, *rest = parts[0].split("\n\n")
    told = f"This page is an executed notebook: [{notebook.name}]({notebook.name})."
    page = "\n\n".join([title, told, *rest, *parts[1:]])
    return {f"notebooks/{notebook.stem}.md": page, **pictures}


def api() -> str:
    """A section a public name."""
    parts = ["# API", "Whatever a command does is a function with the same name."]
    for name in (name for name in jaxood.__all__ if name != "__version__"):
        one = getattr(jaxood, name)
        options = f"      heading: jaxood.{name}\n      toc_label: {name}"
        parts.append(f"::: {one.__module__}.{one.__qualname__}\n    options:\n{options}")
    return "\n\n".join(parts)


def detector_index(entries: list[Entry]) -> str:
    parts = [
        "# Detectors",
        "A method is a score, or a view and transforms before it, joined by `+`: `sfp+react+knn`. "
        "Higher is more in-distribution.",
    ]
    for kind, title in KINDS.items():
        parts += [f"## {title}", table([entry for entry in entries if entry.kind == kind])]
    return "\n\n".join(parts)


def attribution_index(entries: list[Entry]) -> str:
    told = "Maps of which places of an image a class rests on: for `attribute`, `faithfulness` and "
    return "\n\n".join(["# Attributions", f"{told}`sfp[by=NAME]`.", table(entries)])


def measure_index(entries: list[Entry]) -> str:
    told = "How faithful a map is, for `faithfulness`; each page says which definition this is."
    return "\n\n".join(["# Measures of faithfulness", told, table(entries)])


def table(entries: list[Entry]) -> str:
    rows = [
        f"| [`{e.name}`]({e.name}.md) | {e.summary} | {', '.join(e.needs) or 'logits'} |"
        for e in entries
    ]
    return "\n".join(["| name | | needs |", "| --- | --- | --- |", *rows])


def part_page(entry: Entry, part: type) -> str:
    """What its module and its class say, its parameters and what it needs."""
    module = inspect.getmodule(part)
    parts = [f"# {entry.name}", entry.summary]
    facts = [("paper", entry.paper), ("needs", ", ".join(entry.needs) or "logits")]
    facts += [("in Python", f"`{part.__module__}.{part.__qualname__}`")]
    rows = [f"| {name} | {value} |" for name, value in facts if value]
    parts.append("\n".join([f"| kind | {entry.kind} |", "| --- | --- |", *rows]))
    if entry.parameters:
        rows = [f"| `{name}` | `{value!r}` |" for name, value in entry.parameters]
        parts += ["## Parameters", "\n".join(["| name | default |", "| --- | --- |", *rows])]
    about = inspect.getdoc(part) or ""
    if "\n" in about:
        parts.append(markdown(about.partition("\n")[2]))
    parts += ["## Definition", markdown(inspect.getdoc(module) or "")]
    return "\n\n".join(parts)


def markdown(docstring: str) -> str:
    """Paragraphs as they are; what is indented, or drawn as a table, as it stands in the source."""
    blocks = []
    for block in re.split(r"\n\s*\n", docstring.strip("\n")):
        heading = re.fullmatch(r"(Attributes|Args|Returns|Raises):\n(.*)", block, re.S)
        if heading:
            blocks += [f"**{heading[1]}**", fenced(inspect.cleandoc("\n" + heading[2]))]
        elif re.search(r"^(\s|\|)", block, re.M):
            blocks.append(fenced(textwrap.dedent(block)))
        else:
            blocks.append(block)
    return "\n\n".join(blocks)


def fenced(text: str, language: str = "text") -> str:
    return f"```{language}\n{text}\n```"
