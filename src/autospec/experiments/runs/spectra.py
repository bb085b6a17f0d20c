"""The spectra file of a run: its root attributes, and what happens to one that is damaged."""

from __future__ import annotations

import json
import logging
from importlib.metadata import version
from typing import Any

from autospec.errors import DamagedFile
from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.runs.folder import RunFolder, ended
from autospec.experiments.runs.provenance import Provenance
from autospec.experiments.training.tasks import TASKS
from autospec.store.table import read_table
from autospec.store.write import hdf5_attributes

log = logging.getLogger(__name__)


def spectra_attributes(
    config: ExperimentConfig, description: str, data: Dataset, provenance: Provenance
) -> dict[str, Any]:
    """Return the root attributes of the spectra file, with which it can be read without the rest of the folder.

    Args:
        config: the run's configuration.
        description: the same as YAML.
        data: what it trains on.
        provenance: where, and with which versions.
    """
    return hdf5_attributes(
        {
            "run_id": provenance.run_id,
            "config": description,
            "seed": config.seed,
            "simulated": data.simulated,
            "source": data.source,
            "facts": json.dumps(data.facts, allow_nan=False),
            "data_fingerprint": provenance.data_fingerprint,
            "device": provenance.device,
            "metric": TASKS[config.task].metric_name,
            "autospec_version": version("autospec-torch"),
            "torch_version": version("torch"),
            "git_commit": provenance.git_commit,
        }
    )


def set_damaged_spectra_aside(folder: RunFolder, config: ExperimentConfig) -> None:
    """Move spectra that were read and found wrong out of the way: the run begins anew, and nothing is lost.

    Args:
        folder: the run's.
        config: the run's; a run that was complete is made anew with ``overwrite`` alone.

    Raises:
        UnreadableFile: where the spectra cannot be read now, which says nothing of their content.
        DamagedFile: where they are damaged and the run was complete.
    """
    if not folder.has_spectra:
        return
    try:
        read_table(folder.spectra)
    except DamagedFile as error:
        # a complete run may have cost days: it is not begun anew unless that is asked for
        if not config.overwrite and ended(folder, config.epochs):
            raise DamagedFile(
                f"{error}; the run was complete: overwrite=true sets the file aside and makes it anew"
            ) from error
        earlier = len(list(folder.path.glob("spectra.damaged*.h5")))
        aside = folder.spectra.with_name(f"spectra.damaged{earlier or ''}.h5")
        folder.spectra.replace(aside)
        log.warning("%s; set aside as %s, and the run begins anew", error, aside.name)
