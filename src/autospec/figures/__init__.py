"""Drawing: tables in, pictures out; no statistics are computed here."""

from autospec.errors import require_extra

require_extra("autospec.figures", "figures", "matplotlib", "scipy")
