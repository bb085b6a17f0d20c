"""The names of groups, as far as they are known before any data are loaded."""

from __future__ import annotations

from itertools import product

from autospec.experiments.config.schema import CohortConfig, DatasetConfig, MnistConfig, SinusoidConfig


def group_names(config: DatasetConfig) -> list[str] | None:
    """The names that groups and margins may have by the configuration alone.

    Args:
        config: The data set's configuration.

    Returns:
        The names; None where the data's values name them.

    Example:
        >>> group_names(MnistConfig(digits=[0, 3]))
        ['0', '3']
    """
    if isinstance(config, MnistConfig):
        return [str(digit) for digit in config.digits]
    if isinstance(config, SinusoidConfig):
        return [str(kind) for kind in config.classes]
    if not isinstance(config, CohortConfig) or any(column not in config.labels for column in config.group_by):
        return None
    labels = [list(config.labels[column]) for column in config.group_by]
    crossed = ["/".join(cell) for cell in product(*labels)]
    return list(dict.fromkeys([*crossed, *(label for names in labels for label in names)]))
