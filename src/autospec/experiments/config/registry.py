"""The schema, made known to Hydra, so that a misspelled key or a wrong type ends before anything starts."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from autospec.experiments.config.schema import DATASET_SCHEMAS, ExperimentConfig


def register_schemas() -> None:
    """Make the experiment's schema and that of every data set known to Hydra; safe to call again."""
    Plugins.instance()  # finds the launchers, which register their choices
    store = ConfigStore.instance()
    if "schema.yaml" in store.repo:
        return
    store.repo["hydra"]["launcher"].pop("joblib.yaml", None)  # the one in conf/ takes its place and explains its keys
    store.store(name="schema", node=ExperimentConfig)
    for name, node in DATASET_SCHEMAS.items():
        store.store(group="dataset", name=f"{name}_schema", node=node)
