"""Counting: the share of studies in which each test finds a difference, with exact intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from autospec.store.atomic import write_atomically

ALPHA, LEVEL = 0.05, 0.99
EFFECT = "effect [0-9]"
"""What the name of a study of power holds."""
COLUMNS = {
    "test": "The test, and the stage of training.",
    "null": "The task, and what makes the data null; for power the simulated effect.",
    "groups": "Subjects in the two groups.",
    "alpha": "A p up to this counts as a difference.",
    "rate": "The share of runs with a difference.",
    "low": "Lower end of its exact (Clopper-Pearson) 99 % interval.",
    "high": "Upper end of that interval.",
    "runs": "Studies, each with data, network and permutations of its own.",
}


def clopper_pearson(findings: int, runs: int, level: float = LEVEL) -> tuple[float, float]:
    """Compute the exact interval of a share (Clopper & Pearson 1934, Biometrika 26:404).

    Args:
        findings: In how many runs a test found a difference.
        runs: The number of runs.
        level: The interval's confidence level.

    Returns:
        Its lower and upper end: ``scipy.stats.binomtest(findings, runs).proportion_ci(level, "exact")``.
    """
    from scipy.stats import binomtest

    interval = binomtest(findings, runs).proportion_ci(level, "exact")
    return float(interval.low), float(interval.high)


def rates(studies: pd.DataFrame, null: str, groups: str) -> pd.DataFrame:
    """Count how often each test finds a difference at each stage.

    Args:
        studies: Columns test, stage, p; a p that is not defined finds nothing.
        null: What makes the data null.
        groups: The sizes of the groups.

    Returns:
        A row for each test and stage, with the columns of ``COLUMNS``.
    """
    rows = []
    for (test, stage), of_test in studies.groupby(["test", "stage"], sort=False):
        # a share of 1 + P partitions, such as 5/100: rounding must not decide
        findings, runs = int((of_test["p"] <= ALPHA + 1e-9).sum()), len(of_test)
        low, high = clopper_pearson(findings, runs)
        rows.append((f"{test}, {stage}", null, groups, ALPHA, findings / runs, low, high, runs))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def markdown(table: pd.DataFrame) -> str:
    """Write tables of rates in Markdown, one for each learner and one for power, with their headings."""
    learner = table["null"].str.split(",").str[0].str.capitalize()
    heading = learner.where(~table["null"].str.contains(EFFECT), learner + ": power")
    # named apart by what comes after the learner
    short = table.assign(null=table["null"].str.split(", ", n=1).str[-1])
    return "\n\n".join(f"### {name}\n\n{_grid(short[heading == name])}" for name in heading.drop_duplicates())


def _grid(table: pd.DataFrame) -> str:
    """A row for each test, a column for each null and its groups; bold where the interval does not cover 0.05."""
    covered = (table["low"] <= table["alpha"]) & (table["alpha"] <= table["high"])
    rate = table["rate"].map("{:.3f}".format)
    power = table["null"].str.contains(EFFECT)
    cells = table.assign(
        text=rate.where(covered | power, "**" + rate + "**"), column=table["null"] + ", " + table["groups"]
    )
    tests, columns = ordered_tests(cells), cells["column"].drop_duplicates().tolist()
    text = cells.set_index(["test", "column"])["text"].to_dict()
    runs = cells.groupby("column")["runs"].max()
    lines = [f"| test | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    lines.append(f"| *studies* | {' | '.join(f'*{runs[column]:,}*' for column in columns)} |")
    lines += [f"| {test} | {' | '.join(str(text.get((test, column), '')) for column in columns)} |" for test in tests]
    return "\n".join(lines)


def ordered_tests(table: pd.DataFrame) -> list[str]:
    """List every test of a table, in the order of the null that has most of them."""
    of_nulls = [part["test"].tolist() for _, part in table.groupby(["null", "groups"], sort=False)]
    first = max(of_nulls, key=len, default=[])
    return list(dict.fromkeys([*first, *table["test"]]))


def merge(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Replace in rates of another time those of the nulls and groups that were counted since."""
    if before.empty:
        return after
    cells = [tuple(cell) for cell in after[["null", "groups"]].to_numpy()]
    kept = before[[tuple(cell) not in cells for cell in before[["null", "groups"]].to_numpy()]]
    return pd.concat([kept, after], ignore_index=True)


def within(table: pd.DataFrame) -> tuple[int, int]:
    """Count the rates whose interval covers alpha, and all rates."""
    covered = (table["low"] <= table["alpha"]) & (table["alpha"] <= table["high"])
    return int(np.count_nonzero(covered)), len(table)


def read(path: Path) -> pd.DataFrame:
    """Read the rates of an earlier call; none where there is no file."""
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(COLUMNS))


def write(table: pd.DataFrame, path: Path) -> None:
    """Write the rates as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
