"""From a folder of files to a prepared cohort: layouts, readers, one part per subject, the whole, its quality page."""

from autospec.errors import require_extra

require_extra("autospec.cohorts", "neuroimaging", "nibabel", "nilearn", "scipy", "matplotlib", "tqdm")
