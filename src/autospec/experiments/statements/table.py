"""The table of the statements: shares of seeds with intervals, effects, p."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from autospec.experiments.statements.networks import SeedRecord
from autospec.experiments.statements.statements import STATEMENTS
from autospec.experiments.validation.rates import clopper_pearson

COLUMNS = {
    "statement": "Its number.",
    "states": "What is stated.",
    "seeds": "Seeds of network and, where they are simulated, of the data.",
    "share": "The share of seeds in which it holds.",
    "low": "Lower end of the share's exact (Clopper-Pearson) 95 % interval.",
    "high": "Upper end of that interval.",
    "effect": "Its median effect over seeds.",
    "effect_is": "What the effect is.",
    "p": "Of the effect, over seeds; NaN where there is no valid test.",
    "p_is": "Which test, or why there is none.",
    "verdict": "holds: in at least nine seeds of ten; does not hold: in at most one of ten; sometimes: between.",
}
MOST, FEWEST = 0.9, 0.1


def statement_table(seeds: Sequence[SeedRecord]) -> pd.DataFrame:
    """Judge every statement.

    Args:
        seeds: The runs of every seed.

    Returns:
        A row for each statement, with the columns of ``COLUMNS``.
    """
    return pd.DataFrame([_row(number, seeds) for number in STATEMENTS], columns=list(COLUMNS))


def _row(number: str, seeds: Sequence[SeedRecord]) -> dict[str, Any]:
    judge = STATEMENTS[number]
    outcome = judge(seeds)
    share = float(np.mean(outcome.holds))
    low, high = clopper_pearson(sum(outcome.holds), len(outcome.holds), 0.95)
    return {
        "statement": number,
        "states": str(judge.__doc__).removeprefix(f"{number}: ").rstrip("."),
        "seeds": len(outcome.holds),
        "share": share,
        "low": low,
        "high": high,
        "effect": outcome.effect,
        "effect_is": outcome.effect_is,
        "p": outcome.p,
        "p_is": outcome.p_is,
        "verdict": verdict(share),
    }


def verdict(share: float) -> str:
    """Say in a word how often a statement holds.

    Args:
        share: The share of seeds in which it does.

    Returns:
        ``holds``, ``sometimes`` or ``does not hold``.
    """
    return "holds" if share >= MOST else "does not hold" if share <= FEWEST else "sometimes"


def markdown(table: pd.DataFrame) -> str:
    """Write the table for a page.

    Args:
        table: The table of statements.

    Returns:
        Markdown.
    """
    lines = ["| | statement | holds in | effect | p | verdict |", "|---|---|---|---|---|---|"]
    for row in table.to_dict("records"):
        share = f"{row['share']:.0%} ({row['low']:.0%} to {row['high']:.0%})"
        p = f"{row['p']:.4f}: {row['p_is']}" if np.isfinite(row["p"]) else row["p_is"]
        effect = f"{row['effect']:+.2f}: {row['effect_is']}"
        lines.append(f"| {row['statement']} | {row['states']} | {share} | {effect} | {p} | {row['verdict']} |")
    return "\n".join(lines)
