"""Neuroimaging: constrained ICA with a template, and cleaning of what comes out of it.

The public names are loaded when they are first used: nibabel, nilearn and scikit-learn with ``NeuroMarkICA`` alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autospec.errors import require_extra

if TYPE_CHECKING:
    from autospec.neuroimaging.atlas import AtlasTimecourses
    from autospec.neuroimaging.constrained import Components, constrained_ica
    from autospec.neuroimaging.domains import COMPONENT_NAMES, DOMAINS, Domain
    from autospec.neuroimaging.maps import modes, scale_maps
    from autospec.neuroimaging.neuromark import NeuroMarkICA
    from autospec.neuroimaging.repetition_time import repetition_time_s
    from autospec.neuroimaging.timecourses import clean, despike, detrend, low_pass, regress_out_motion, z_score

require_extra("autospec.neuroimaging", "neuroimaging", "nibabel", "nilearn", "sklearn", "scipy")

_HOMES = {
    "AtlasTimecourses": "atlas",
    "NeuroMarkICA": "neuromark",
    "constrained_ica": "constrained",
    "Components": "constrained",
    "DOMAINS": "domains",
    "COMPONENT_NAMES": "domains",
    "Domain": "domains",
    "modes": "maps",
    "scale_maps": "maps",
    "repetition_time_s": "repetition_time",
    "clean": "timecourses",
    "despike": "timecourses",
    "detrend": "timecourses",
    "low_pass": "timecourses",
    "regress_out_motion": "timecourses",
    "z_score": "timecourses",
}

__all__ = [*_HOMES]  # noqa: PLE0604 (the names are strings)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autospec.neuroimaging' has no attribute {name!r}")
    return getattr(import_module(f"autospec.neuroimaging.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
