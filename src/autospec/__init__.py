"""AutoSpec: how a network's gradient spectra evolve in training, group by group.

The public names are loaded when they are first used, so that ``import autospec`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from autospec import neuroimaging
    from autospec.capture.rules.registry import LayerCall, register_rule
    from autospec.errors import AutoSpecError, AutoSpecWarning
    from autospec.recording.layer_table import LayerTable, check
    from autospec.recording.recorder import SpectralRecorder
    from autospec.spectra.factors import GradientFactors
    from autospec.spectra.gradient import group_gradients
    from autospec.spectra.layer_record import LayerRecord
    from autospec.spectra.registered import register_statistic
    from autospec.spectra.singular import singular_values
    from autospec.store.read import Spectra, open_spectra
    from autospec.store.sweep import open_sweep

_HOMES = {
    "SpectralRecorder": "autospec.recording.recorder",
    "check": "autospec.recording.layer_table",
    "LayerTable": "autospec.recording.layer_table",
    "singular_values": "autospec.spectra.singular",
    "group_gradients": "autospec.spectra.gradient",
    "open_spectra": "autospec.store.read",
    "open_sweep": "autospec.store.sweep",
    "Spectra": "autospec.store.read",
    "GradientFactors": "autospec.spectra.factors",
    "LayerCall": "autospec.capture.rules.registry",
    "register_rule": "autospec.capture.rules.registry",
    "LayerRecord": "autospec.spectra.layer_record",
    "register_statistic": "autospec.spectra.registered",
    "AutoSpecError": "autospec.errors",
    "AutoSpecWarning": "autospec.errors",
}

__all__ = [*_HOMES, "__version__", "neuroimaging"]  # noqa: PLE0604 (the names are strings)


def __getattr__(name: str) -> Any:
    if name == "neuroimaging":
        return import_module("autospec.neuroimaging")
    if name == "__version__":
        from importlib.metadata import version

        return version("autospec-torch")
    if name not in _HOMES:
        raise AttributeError(f"module 'autospec' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
