"""What a report.html says, read from its source."""

from html.parser import HTMLParser


class Tables(HTMLParser):
    """The rows of each table by its id: texts, and the values of numbers."""

    def __init__(self):
        super().__init__()
        self.rows, self.cells, self.value = {}, [], None

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        if tag == "table":
            self.rows[told["id"]] = self.current = []
        elif tag == "tr":
            self.cells = []
        elif tag in ("td", "th"):
            self.cells.append("")
            self.value = told.get("data-value")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data

    def handle_endtag(self, tag):
        if tag == "td" and self.value:
            self.cells[-1] = float(self.value), self.cells[-1]
        elif tag == "tr":
            self.current.append(self.cells)
            self.cells = []


def tables(html):
    parser = Tables()
    parser.feed(html)
    return parser.rows
