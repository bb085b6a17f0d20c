"""What a reader of a figure must know of how its data were made, in a form that footers and methods can use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autospec.experiments.config.schema import CohortConfig
from autospec.experiments.datasets.balance import Difference


def cohort_facts(
    config: CohortConfig, balance: Sequence[Difference], shape: Sequence[int], source: str
) -> dict[str, Any]:
    """Collect the facts of a cohort.

    ``study`` is what a title may call it (None for a simulated cohort); ``adjusted_for``, ``harmonized_by`` and
    ``matched_by`` name columns; ``imbalances`` are the groups' differences above 0.25 that are left, worst first, each
    with whether it was adjusted for; ``motion_cut`` is in the unit of the motion column; ``time_points``,
    ``resolution_mm`` and ``shape`` say how much of the data was used.

    Args:
        config: The data set's configuration.
        balance: The groups' differences.
        shape: Of one subject's input.
        source: Where the data come from, in a few words.

    Returns:
        Names and values, as JSON can hold them.
    """
    adjusted = [*config.residualize, *config.harmonize, *config.match]
    large = sorted((one for one in balance if one.large), key=lambda one: -abs(one.standardised))
    imbalances = [{**one.record(), "adjusted": one.covariate.split(" ")[0] in adjusted} for one in large]
    return {
        "study": _study(config),
        "source": source,
        "adjusted_for": list(config.residualize),
        "equal_leverage": config.equal_leverage,
        "harmonized_by": list(config.harmonize),
        "matched_by": list(config.match),
        "motion_cut": config.motion_cut,
        "session": config.session,
        "imbalances": imbalances,
        "time_points": getattr(config, "time_points", None),
        "resolution_mm": getattr(config, "resolution_mm", None),
        "shape": list(shape),
    }


def _study(config: CohortConfig) -> str | None:
    """The user's own study: the folder of the table of subjects, or the name of the prepared cohort."""
    participants, path = getattr(config, "participants", None), config.path
    if participants is not None:
        return Path(participants).resolve().parent.name or None
    if path is None:
        return None
    given = Path(path)
    return given.stem if given.suffix else given.resolve().name
