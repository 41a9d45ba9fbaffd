"""Joins the results of evaluations into tables for a paper.

Reads what `jaxood evaluate` and `jaxood study` wrote in the folders and below them. Several weights
of one model, and several seeds, are shown as mean and standard deviation; the best of each model
and column is marked.

  jaxood report runs/ --columns sets --sort auroc --output tables/
"""

import argparse

from jaxood.cli.options import add, add_table_arguments
from jaxood.cli.values import as_json, output_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add(parser, "folders", "DIR", "with results in it or below it", nargs="+")
    add_table_arguments(parser)
    text = "also write metrics.csv, metrics.json, table.md and table.tex there"
    add(parser, "--output", "DIR", text, type=output_folder)


def run(args: argparse.Namespace) -> None:
    from jaxood.report.joined import load_report

    show(load_report(*args.folders), args)


def show(found, args: argparse.Namespace) -> None:
    """Prints the tables that were asked for, and writes them."""
    how = args.metrics, args.columns, args.sort
    tables = found.tables(*how) if found.rows else []
    if args.output and tables:
        found.save(args.output, *how)  # first: whoever reads the output may have gone
    if args.json:
        print(as_json(found.rows))
    else:
        print("\n\n".join([*map(str, tables), *found.remarks]))
