"""Where Hydra looks for plugins; what a sweep does stands in ``autospec.experiments.launch.sweep``."""

from autospec.experiments.launch.sweep import Sweep


class CheckingSweeper(Sweep):
    """The sweeper of ``conf/hydra/sweeper/checking.yaml``."""
