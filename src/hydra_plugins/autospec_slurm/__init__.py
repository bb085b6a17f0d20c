"""Where Hydra looks for plugins; how jobs are sent to SLURM stands in ``autospec.experiments.launch.slurm``."""

from autospec.experiments.launch.slurm import SlurmSweepLauncher


class SlurmLauncher(SlurmSweepLauncher):
    """The launcher of ``conf/hydra/launcher/slurm.yaml``."""
