"""What another arithmetic changes: ranks and areas, image by image."""

import csv
import dataclasses

import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

import jaxood
from jaxood import UsageError
from jaxood.cli import main
from jaxood.flows.precision import compare
from jaxood.runner.features import Features


@pytest.fixture(scope="module")
def runs(cache):
    models = [jaxood.load_model(dtype=dtype, cache=cache) for dtype in ("float32", "bfloat16")]
    return [jaxood.evaluate(model, "digits", ["energy", "sfp"]) for model in models]


def test_ranks_and_areas_are_scipys_and_scikit_learns(runs):
    result, other = runs
    found = {(row.method, row.set): row for row in compare(result, other)}
    for one, theirs in zip(result.results, other.results, strict=True):
        pairs = {"digits 0-5": (one.scores.id, theirs.scores.id)}
        pairs |= {name: (one.scores.ood[name], theirs.scores.ood[name]) for name in one.metrics}
        for name, both in pairs.items():
            row = found.pop((one.method, name))
            assert row.rank_correlation == pytest.approx(spearmanr(*both).statistic, abs=1e-12)
            assert 0.9 < row.rank_correlation < 1
            if name == "digits 0-5":
                assert row.auroc is None
                continue
            before, after = (
                roc_auc_score([1] * len(known) + [0] * len(foreign), [*known, *foreign])
                for known, foreign in zip(pairs["digits 0-5"], both, strict=True)
            )
            assert row.auroc == pytest.approx(100 * (after - before), abs=1e-9)
    assert found == {}


def test_a_run_is_itself_and_others_are_refused(runs):
    result, _ = runs
    assert {(row.rank_correlation, row.auroc or 0.0) for row in compare(result, result)} == {(1, 0)}
    pooled, logits, extras, indices, skipped = result.id_test.features
    fewer = Features(pooled, logits, extras, indices[:-1], skipped)
    found = result.id_test._replace(features=fewer)
    with pytest.raises(UsageError, match="other: got other images in digits 0-5, wanted a run"):
        compare(result, dataclasses.replace(result, id_test=found))


@pytest.mark.long
def test_the_command_tells_and_keeps_it(cache, tmp_path, capsys):
    told = ["--method", "energy", "--compare-dtype", "bfloat16", "--quiet", "--output"]
    told.append(str(tmp_path))
    assert main("evaluate", [*told, "--cache-dir", str(cache)]) == 0
    out = capsys.readouterr().out
    assert "bfloat16 instead of float32:" in out and max(map(len, out.splitlines())) <= 80
    with (tmp_path / "precision.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["set"] for row in rows] == ["digits 0-5", "digits 6-9", "patches", "noise"]
    assert main("evaluate", [*told[:2], "--compare-dtype", "float8", "--output", "x"]) == 2
    assert "--compare-dtype: got 'float8'" in capsys.readouterr().err
