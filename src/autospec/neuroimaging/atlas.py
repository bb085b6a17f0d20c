"""Time-courses of the regions of an atlas, by nilearn's maskers: Schaefer's labels, DiFuMo's or MSDL's maps."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel import Nifti1Image
from nilearn.image import resample_img
from nilearn.maskers import NiftiLabelsMasker, NiftiMapsMasker

from autospec.errors import AutoSpecError
from autospec.neuroimaging.orientation import orient
from autospec.neuroimaging.repetition_time import repetition_time_s
from autospec.neuroimaging.scans import (
    ImageLike,
    as_list,
    check_same_grid,
    grid_of,
    load_image,
    name_of,
    open_scan,
    read_values,
    same_grid,
)
from autospec.neuroimaging.timecourses import LOW_PASS_HZ, clean

log = logging.getLogger(__name__)


class AtlasTimecourses:
    """One time-course per region: the mean of its voxels (labels, 3-D), or the joint fit of maps (4-D).

    Args:
        atlas: A 3-D image of labels (0 is background) or a 4-D image of maps, or its path; one on another grid is
            resampled to the scans' (labels by the nearest voxel, maps linearly), and that is logged.
        mask: A 3-D image or path that regions are cut to, on the scans' grid.
        clean: Detrend, regress motion out where it is given, despike and low-pass the time-courses.
        low_pass_hz: Cutoff of the low-pass in Hz, None for none.
        tr_s: Repetition time in seconds; by default of each scan's BIDS sidecar or header.
        orientation: See ``NeuroMarkICA``.

    Attributes:
        names_: What the regions are called: their labels, or numbers from 1.
        absent_: Labels that no voxel of the scans' grid has.

    Raises:
        AutoSpecError: A file is at fault; it is named.
    """

    def __init__(
        self,
        atlas: ImageLike,
        mask: ImageLike | None = None,
        *,
        clean: bool = False,
        low_pass_hz: float | None = LOW_PASS_HZ,
        tr_s: float | None = None,
        orientation: str | None = None,
    ) -> None:
        self.atlas = atlas
        self.mask = mask
        self.clean = clean
        self.low_pass_hz = low_pass_hz
        self.tr_s = tr_s
        self.orientation = orientation

    def fit(self, images: ImageLike | Sequence[ImageLike]) -> AtlasTimecourses:
        """Bring the atlas to the grid of the scans.

        Args:
            images: One scan or several, all on one grid.

        Returns:
            The model itself.

        Raises:
            AutoSpecError: Grids differ, or the atlas has no region within the scans.
        """
        scans = [self._open_oriented(image) for image in as_list(images)]
        grid = scans[0]
        for scan in scans[1:]:
            check_same_grid(scan, grid, name_of(grid))
        atlas = load_image(self.atlas, "atlas")
        if len(atlas.shape) not in (3, 4):
            raise AutoSpecError(f"atlas {name_of(atlas, 'atlas')}: has {len(atlas.shape)} dimensions, not 3 or 4")
        self._is_labels = len(atlas.shape) == 3
        on_grid = self._on_grid(atlas, grid)
        self.absent_ = self._absent(atlas, on_grid)
        self.atlas_img_ = Nifti1Image(on_grid, grid.affine)
        values = np.unique(on_grid)
        self.names_ = tuple(
            [f"{label:g}" for label in values if label != 0]
            if self._is_labels
            else map(str, range(1, on_grid.shape[3] + 1))
        )
        if not self.names_:
            raise AutoSpecError(f"atlas {name_of(atlas, 'atlas')}: has no region within the scans ({grid_of(grid)})")
        options: dict[str, Any] = {"mask_img": self.mask, "standardize": None, "reports": False}
        if self._is_labels:
            masker: Any = NiftiLabelsMasker(self.atlas_img_, keep_masked_labels=False, **options)
        else:
            masker = NiftiMapsMasker(self.atlas_img_, keep_masked_maps=False, **options)
        self.masker_ = masker.fit()
        return self

    def extract(self, image: ImageLike, motion: npt.ArrayLike | None = None) -> npt.NDArray[np.float64]:
        """The time-courses of a scan's regions.

        Args:
            image: A scan on the fitted grid.
            motion: (time, covariates) to regress out, or None.

        Returns:
            (time, regions).

        Raises:
            AutoSpecError: The scan cannot be used, or a region lies outside its mask; they are named.
        """
        scan = self._open_oriented(image)
        check_same_grid(scan, self.atlas_img_, "the atlas")
        needed = self.clean and self.low_pass_hz is not None
        tr_s = self.tr_s if self.tr_s is not None or not needed else repetition_time_s(scan)
        values = np.nan_to_num(read_values(scan), nan=0.0)
        with warnings.catch_warnings():
            # regions without a voxel in the mask are an error below, which names the scan
            warnings.simplefilter("ignore", UserWarning)
            courses = np.asarray(self.masker_.transform(Nifti1Image(values, self.atlas_img_.affine)), dtype=np.float64)
        if courses.shape[1] != len(self.names_):
            raise AutoSpecError(
                f"scan {name_of(scan)}: {len(self.names_) - courses.shape[1]} of {len(self.names_)} regions have no "
                "voxel within the mask"
            )
        return clean(courses, tr_s, motion, self.low_pass_hz) if self.clean else courses

    def _open_oriented(self, image: ImageLike) -> Any:
        return orient(open_scan(image), self.orientation, load_image(self.atlas, "atlas"))

    def _on_grid(self, atlas: Any, grid: Any) -> npt.NDArray:
        if same_grid(atlas, grid):
            return read_values(atlas, "atlas")
        log.info("atlas %s (%s) resampled to %s", name_of(atlas, "atlas"), grid_of(atlas), grid_of(grid))
        moved = resample_img(
            atlas,
            target_affine=grid.affine,
            target_shape=grid.shape[:3],
            interpolation="nearest" if self._is_labels else "linear",
            force_resample=True,
            copy_header=True,
        )
        return np.asarray(moved.dataobj)

    def _absent(self, atlas: Any, on_grid: npt.NDArray) -> tuple[str, ...]:
        """Labels of the atlas that no voxel of the grid has; said, since networks get that many inputs fewer."""
        if not self._is_labels:
            return ()
        lost = sorted(set(np.unique(read_values(atlas, "atlas")).tolist()) - set(np.unique(on_grid).tolist()) - {0})
        return tuple(f"{label:g}" for label in lost)
