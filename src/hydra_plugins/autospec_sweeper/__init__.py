"""Where Hydra looks for plugins; what a sweep does stands in ``autospec.sweep``."""

from autospec.sweep import Sweep


class CheckingSweeper(Sweep):
    """The sweeper of ``conf/hydra/sweeper/checking.yaml``."""
