"""AutoSpec's sweeper and SLURM launcher, made known to Hydra by our entry point alone.

Hydra loads whatever it finds in the namespace ``hydra_plugins`` into every Hydra application on the machine, so
nothing of ours is installed there. It accepts plugins under names of that namespace only, though: here they get one.
"""

from __future__ import annotations

from hydra.core.plugins import Plugins


def register_plugins() -> None:
    """Make the plugins known in this process, for ``_target_`` of ``conf/hydra/``; safe to call again.

    Pickles of a plugin name its class's own module, so that processes of jobs find it without this.
    """
    plugins = Plugins.instance()
    # Hydra runs the modules of its own plugins anew when it looks for plugins: what is derived from them comes after
    from autospec.experiments.launch.slurm import SlurmSweepLauncher
    from autospec.experiments.launch.sweep import Sweep

    plugins.class_name_to_class["hydra_plugins.autospec.CheckingSweeper"] = Sweep
    plugins.class_name_to_class["hydra_plugins.autospec.SlurmLauncher"] = SlurmSweepLauncher
