"""The files that say what a run is, written before it trains."""

from __future__ import annotations

import json

from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.runs.folder import RunFolder
from autospec.figures.sites import draw_sites
from autospec.store.atomic import remove_leftovers, write_atomically


def write_description(folder: RunFolder, description: str, data: Dataset) -> None:
    """Write what a run is: its configuration, and the account of its cohort.

    Args:
        folder: the run's.
        description: its configuration as YAML.
        data: what it trains on.
    """
    # a launch that was killed while it wrote has left a temporary file, which nobody else removes
    for path in (folder.checkpoint, folder.config, folder.provenance, folder.cohort):
        remove_leftovers(path)
    with write_atomically(folder.config) as temporary:
        temporary.write_text(description, "utf-8")
    if data.account:  # only the data sets of people have one
        told = {"account": data.account, "balance": data.balance, "facts": data.facts}
        with write_atomically(folder.cohort) as temporary:
            temporary.write_text(json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    if "site_effects" in data.facts:
        draw_sites(data.facts["site_effects"], data.source, folder.sites)
