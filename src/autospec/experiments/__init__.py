"""The paper's experiments: configuration, data sets, training, runs, reports."""

from pathlib import Path

from autospec.errors import require_extra

CONF = Path(__file__).parent / "conf"
"""The configuration that comes with the package; in a checkout a link to ``conf/`` at its top."""

require_extra(
    "autospec.experiments",
    "experiments",
    *("hydra", "omegaconf", "hydra_plugins", "submitit", "joblib", "mlxtend", "transformers", "tqdm"),
    *("matplotlib", "scipy", "nibabel", "nilearn"),
)
