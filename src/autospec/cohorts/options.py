"""What a user asks of the preparation of a cohort."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autospec.cohorts.joining import check_id_pattern
from autospec.cohorts.prepared_file import is_prepared
from autospec.errors import AutoSpecError
from autospec.neuroimaging.orientation import ORIENTATIONS
from autospec.neuroimaging.timecourses import LOW_PASS_HZ

ALLOWED_DIFFERENCES = ("tr", "task", "session")
"""What ``--allow`` can let scans of one cohort differ in."""


@dataclass(frozen=True)
class Options:
    """The options of ``autospec prepare``, which explains them."""

    folder: Path
    output: Path
    template: Path | None = None
    atlas: Path | None = None
    mask: Path | None = None
    layout: str = "auto"
    phenotype: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    scans: str | None = None
    files_column: str | None = None
    ids: Path | None = None
    session: int = 1
    labels: Path | None = None
    components: Path | None = None
    motion: str | None = None
    motion_format: str = "auto"
    confounds: tuple[str, ...] = ()
    orientation: str | None = None
    allow: tuple[str, ...] = ()
    all_sessions: bool = False
    id_pattern: str | None = None
    tr_s: float | None = None
    preparation: str = "rt"
    clean: bool = True
    low_pass_hz: float | None = LOW_PASS_HZ
    volumes: int | None = None
    maps: bool = True
    jobs: int = 1
    device: str | None = None

    def check(self) -> None:
        """Refuse values that nothing can be prepared with.

        Raises:
            AutoSpecError: Names the option and what would be right.
        """
        if self.jobs < 1:
            raise AutoSpecError(f"--jobs {self.jobs}: must be 1 or more")
        if self.volumes is not None and self.volumes < 2:
            raise AutoSpecError(f"--volumes {self.volumes}: must be 2 or more")
        if self.tr_s is not None and not 0 < self.tr_s < 30:
            raise AutoSpecError(f"--tr {self.tr_s:g}: must be seconds between two volumes, above 0 and below 30")
        if self.session < 1:
            raise AutoSpecError(f"--session {self.session}: must be 1 or more")
        if self.low_pass_hz is not None and not 0 < self.low_pass_hz < math.inf:
            raise AutoSpecError(f"--low-pass {self.low_pass_hz:g}: must be a frequency above 0 Hz, or 0 for no filter")
        if self.scans and self.files_column:
            raise AutoSpecError("--scans and --files both say where the scans are; give one")
        if self.orientation not in (None, *ORIENTATIONS):
            raise AutoSpecError(f"--orientation {self.orientation}: must be RAS, LAS or template")
        check_id_pattern(self.id_pattern, "--id-pattern ")
        if self.template and self.atlas:
            raise AutoSpecError("--template and --atlas both say what time-courses are of; give one")
        if self.confounds and self.motion:
            raise AutoSpecError("--confounds and --motion both say what is regressed out; give one")
        if self.output.exists() and not is_prepared(self.output):
            raise AutoSpecError(f"--output {self.output}: exists and is no prepared cohort; it is not overwritten")

    def make_folder(self, folder: Path) -> None:
        """Make a folder that the output needs, with those above it.

        Args:
            folder: The folder.

        Raises:
            AutoSpecError: It cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AutoSpecError(f"--output {self.output}: {folder} cannot be made: {error.strerror}") from error

    def settings(self) -> dict[str, Any]:
        """What decides the numbers, apart from the files; names of files instead of paths.

        Returns:
            Names and values, as JSON can hold them.
        """
        return {
            "preparation": self.preparation,
            "clean": self.clean,
            "low_pass_hz": self.low_pass_hz if self.clean else None,
            "tr_s": self.tr_s,
            **{name: value for name, value in self._new_settings().items() if value},
        }

    def _new_settings(self) -> dict[str, Any]:
        """What was added later, which at its default leaves the settings of files made before as they are."""
        return {
            "motion_format": "" if self.motion_format == "auto" else self.motion_format,
            "confounds": list(self.confounds),
            "orientation": self.orientation,
            "atlas": None if self.atlas is None else self.atlas.name,
        }
