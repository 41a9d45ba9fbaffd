"""Rows of runs, joined, and tables for a paper: means of groups and over runs by hand."""

import csv
import json
import statistics

import numpy as np
import pytest

from jaxood.errors import UsageError
from jaxood.metrics.ood import Interval, Metrics
from jaxood.report.joined import Report, joined, load_report
from jaxood.report.paper import paper_tables
from jaxood.report.rows import Row, Run, accuracy_row, read_rows, rows_of, write_rows
from jaxood.report.tables import MethodResult, Scores


def metrics(auroc, fpr95):
    low_high = Interval(auroc - 0.1, auroc + 0.05), Interval(fpr95 - 0.05, fpr95 + 0.1)
    return Metrics(auroc, low_high[0], fpr95, low_high[1], 0.5, 0.625, 0.75)


GROUPS = {"near": ("a",), "far": ("b", "c|&")}
AUROC = {  # by method, seed and set
    ("knn", 0): (0.80, 0.90, 0.70),
    ("knn", 1): (0.84, 0.92, 0.76),
    ("energy", 0): (0.82, 0.60, 0.60),
    ("energy", 1): (0.82, 0.60, 0.64),
}


def run(seed=0, model="net.v1", weights="12345678", suite="mine", convention="plain"):
    return Run(model, weights, suite, seed, GROUPS, convention)


def result(method, aurocs, shifted=False):
    sets = ("a", "b", "c|&")
    scores = Scores(np.arange(4.0), {name: np.arange(3.0) for name in sets})
    by_set = {name: metrics(value, 1 - value) for name, value in zip(sets, aurocs, strict=True)}
    full = {}
    if shifted:
        scores = scores._replace(shifted={"s": np.arange(5.0)})
        full = {"b": metrics(0.5, 0.5)}
    return MethodResult(method, None, scores, by_set, full)


def rows(seeds=(0, 1), **about):
    return [
        row
        for seed in seeds
        for row in [
            *rows_of(run(seed, **about), [result(m, AUROC[m, seed]) for m in ("knn", "energy")]),
            accuracy_row(run(seed, **about), "test", 0.5 + seed / 4, 4),
        ]
    ]


def test_rows_say_what_they_are_of():
    found = rows_of(run(7), [result("knn", AUROC["knn", 0], shifted=True)])
    assert found[0] == Row(
        *("net.v1", "12345678", "mine", "a", "near", "knn", 7, "auroc"),
        *(0.80, pytest.approx(0.7), pytest.approx(0.85), 4, 3),
    )
    plain = [row for row in found if not row.metric.startswith("full-spectrum")]
    assert [(row.set, row.group, row.metric) for row in plain] == [
        (name, group, metric)
        for name, group in (("a", "near"), ("b", "far"), ("c|&", "far"))
        for metric in ("auroc", "fpr95", "aupr_in", "aupr_out", "dtacc")
    ]
    assert {(row.low, row.high) for row in plain if row.metric == "dtacc"} == {(None, None)}
    (full,) = [row for row in found if row.metric == "full-spectrum auroc"]
    assert (full.set, full.value, full.n_id, full.n_ood) == ("b", 0.5, 9, 3)


def test_a_convention_is_part_of_the_metrics_name():
    found = rows_of(run(convention="openood"), [result("knn", AUROC["knn", 0])])
    assert {row.metric for row in found} >= {"fpr95 (openood)"} and "fpr95" not in {
        row.metric for row in found
    }


def test_both_files_have_the_same_rows_and_are_read_back(tmp_path):
    write_rows(tmp_path, rows())
    with (tmp_path / "metrics.csv").open(newline="") as file:
        as_csv = list(csv.DictReader(file))
    as_json = json.loads((tmp_path / "metrics.json").read_text())
    for left, right in zip(as_csv, as_json, strict=True):
        assert left == {name: "" if v is None else str(v) for name, v in right.items()}
    assert read_rows(tmp_path / "metrics.json") == rows()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries[0].pop("suite"), "other columns"),
        (lambda entries: entries[0].update(value=float("nan")), "finite numbers"),
        (lambda entries: entries[0].update(value="0.9"), "finite numbers"),
        (lambda entries: entries[0].update(seed=-1), "finite numbers"),
        (lambda entries: entries[0].update(method=None), "finite numbers"),
        (lambda entries: entries.clear(), "no row"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, change, message):
    write_rows(tmp_path, rows())
    entries = json.loads((tmp_path / "metrics.json").read_text())
    change(entries)
    (tmp_path / "metrics.json").write_text(json.dumps(entries))
    with pytest.raises(UsageError, match=message):
        load_report(tmp_path)


def cells(table, method, model="net.v1"):
    (line,) = [line for line in table.lines if (line.model, line.method) == (model, method)]
    return dict(zip([(c.title, c.metric) for c in table.columns], line.cells, strict=True))


def test_means_of_groups_and_over_runs_by_hand():
    (table,) = paper_tables(rows())
    knn = cells(table, "knn")
    assert list(dict.fromkeys(title for title, _ in knn)) == ["a", "b", "c|&", "far mean"]
    assert knn["a", "auroc"].mean == pytest.approx(82)
    far = [80, 84]  # (90 + 70) / 2 and (92 + 76) / 2
    assert knn["far mean", "auroc"].mean == pytest.approx(82)
    assert knn["far mean", "auroc"].std == pytest.approx(statistics.stdev(far))
    assert knn["far mean", "fpr95"].mean == pytest.approx(18)
    assert "net.v1: accuracy on test 62.50 ± 17.68 %" in table.notes
    assert "net.v1: mean ± standard deviation over 2 runs" in table.notes


def test_groups_alone():
    (table,) = paper_tables(rows((0,)), columns="groups")
    knn = cells(table, "knn")
    assert [title for title, _ in knn] == ["near", "near", "far", "far"]
    assert knn["near", "auroc"].mean == pytest.approx(80) and knn["near", "auroc"].std is None


def test_without_groups_there_is_the_mean_of_all_sets():
    found = [row._replace(group="") for row in rows((0,))]
    (table,) = paper_tables(found, ["auroc"])
    assert [column.title for column in table.columns] == ["a", "b", "c|&", "mean"]
    assert cells(table, "knn")["mean", "auroc"].mean == pytest.approx(80)
    (short,) = paper_tables(found, ["auroc"], "groups")
    assert [column.title for column in short.columns] == ["mean"]


def test_the_best_of_each_column_and_model_is_marked():
    other = [
        row._replace(model="net.v2", value=row.value / 2) if row.method else row
        for row in rows((0,))
    ]
    (table,) = paper_tables([*rows((0,)), *other], ["auroc", "fpr95"])
    knn, energy = cells(table, "knn"), cells(table, "energy")
    assert energy["a", "auroc"].best and energy["a", "fpr95"].best
    assert knn["b", "auroc"].best and knn["b", "fpr95"].best
    assert not knn["a", "auroc"].best and not energy["b", "auroc"].best
    assert cells(table, "energy", "net.v2")["a", "auroc"].best  # each model has its own


def test_what_is_printed_alike_is_best_alike():
    almost = [
        row._replace(value=0.82001) if (row.method, row.set) == ("knn", "a") else row
        for row in rows((0,))
    ]
    (table,) = paper_tables(almost, ["auroc"])
    assert cells(table, "knn")["a", "auroc"].best and cells(table, "energy")["a", "auroc"].best


def test_orders():
    def order(sort):
        return [
            line.method for line in paper_tables(rows((0,)), ["auroc", "fpr95"], sort=sort)[0].lines
        ]

    assert order(None) == ["knn", "energy"]
    assert order("method") == ["energy", "knn"]
    assert order("auroc") == ["knn", "energy"]  # by the mean of far: 80 and 60
    worse = [row._replace(value=1 - row.value) for row in rows((0,)) if row.method]
    assert [line.method for line in paper_tables(worse, sort="fpr95")[0].lines] == ["energy", "knn"]


def test_a_cell_that_a_run_lacks_is_no_mean():
    lacking = [row for row in rows() if (row.method, row.seed, row.set) != ("knn", 1, "b")]
    (table,) = paper_tables(lacking, ["auroc"])
    knn = cells(table, "knn")
    assert knn["b", "auroc"].mean is knn["far mean", "auroc"].mean is None
    assert knn["a", "auroc"].mean == pytest.approx(82)
    assert "-: not every run has it" in table.notes
    assert cells(table, "energy")["b", "auroc"].best


def test_weights_of_one_name_are_runs():
    both = [*rows((0,), weights="aaaaaaaa"), *rows((0,), weights="bbbbbbbb")]
    (table,) = paper_tables(both, ["auroc"])
    assert cells(table, "knn")["a", "auroc"].std == 0


TEXT = """\
mine              near     far
model   method   AUROC   AUROC
------------------------------
net.v1  knn      80.00  80.00*
net.v1  energy  82.00*   60.00
net.v1: accuracy on test 50.00 %"""

MARKDOWN = """\
**mine**

| model | method | a AUROC | b AUROC | c\\|& AUROC | far mean AUROC |
| --- | --- | ---: | ---: | ---: | ---: |
| net.v1 | knn | 80.00 | **90.00** | **70.00** | **80.00** |
| net.v1 | energy | **82.00** | 60.00 | 60.00 | 60.00 |

net.v1: accuracy on test 50.00 %  """

LATEX = r"""
% mine
% net.v1: accuracy on test 50.00 %
\begin{tabular}{llrrrr}
\toprule
 &  & \multicolumn{2}{c}{near} & \multicolumn{2}{c}{far} \\
\cmidrule(lr){3-4} \cmidrule(lr){5-6}
model & method & AUROC $\uparrow$ & FPR95 $\downarrow$ & AUROC $\uparrow$ & FPR95 $\downarrow$ \\
\midrule
net\_1 & knn & 80.00 & 20.00 & \textbf{80.00} & \textbf{20.00} \\
 & energy & \textbf{82.00} & \textbf{18.00} & 60.00 & 40.00 \\
\bottomrule
\end{tabular}"""


def test_the_tables_word_for_word():
    found = rows((0,))
    assert str(paper_tables(found, ["auroc"], "groups")[0]) == TEXT
    assert paper_tables(found, ["auroc"])[0].markdown() == MARKDOWN
    named = [row._replace(model="net_1" if row.method else row.model) for row in found]
    assert paper_tables(named, columns="groups")[0].latex() == LATEX.strip()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"metrics": ["aurok"]}, "metrics: got 'aurok'"),
        ({"columns": "set"}, "columns: got 'set'"),
        ({"sort": "dtacc"}, "sort: got 'dtacc'"),
    ],
)
def test_what_no_table_has(asked, message):
    with pytest.raises(UsageError, match=message):
        paper_tables(rows(), **asked)


def test_the_first_of_two_numbers_counts_and_is_told_of():
    other = [row._replace(value=0.1) if row.set == "a" else row for row in rows((0,))]
    found = joined([Report(tuple(rows((0,)))), Report(tuple(other)), Report(tuple(rows((1,))))])
    assert found.rows == tuple(rows())
    assert found.conflicts == 10 and "10 numbers differ" in str(found)


def test_runs_below_a_folder_are_joined(tmp_path):
    for name, seeds in (("one", (0,)), ("two", (1,)), ("features/of", (1,))):
        (tmp_path / name).mkdir(parents=True)
        Report(tuple(rows(seeds))).save(tmp_path / name)
    found = load_report(tmp_path)
    assert found.rows == tuple(rows())
    assert load_report(tmp_path / "one", tmp_path / "two") == found
    found.save(tmp_path)
    assert load_report(tmp_path) == found
    assert (tmp_path / "table.md").read_text().startswith("**mine**\n")
    assert r"\bottomrule" in (tmp_path / "table.tex").read_text()


def test_folders_without_results_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"metrics\.json in it or below it"):
        load_report(tmp_path)
    with pytest.raises(UsageError, match="a folder with results"):
        load_report(tmp_path / "nowhere")
