"""AutoSpec's sweeper and SLURM launcher, made known to Hydra by our entry point alone.

Hydra loads whatever it finds in the namespace ``hydra_plugins`` into every Hydra application on the machine, so
nothing of ours is installed there. It accepts plugins under names of that namespace only, though: here they get one.
"""

from __future__ import annotations

from hydra.core.plugins import Plugins

from autospec.experiments.launch.slurm import SlurmSweepLauncher
from autospec.experiments.launch.sweep import Sweep

NAMES = {"hydra_plugins.autospec.CheckingSweeper": Sweep, "hydra_plugins.autospec.SlurmLauncher": SlurmSweepLauncher}
"""Plugins by the name that ``conf/hydra/`` gives them; pickles of them name the classes' own modules."""


def register_plugins() -> None:
    """Make the plugins known in this process, for ``_target_`` of ``conf/hydra/``; safe to call again."""
    plugins = Plugins.instance()
    for name, plugin in NAMES.items():
        plugins.register(plugin)
        plugins.class_name_to_class[name] = plugin
