"""NeuroMark: the components of a template found in every subject's scan, in scikit-learn's manner.

Du et al. 2020, NeuroImage: Clinical 28:102375.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel import Nifti1Image
from nilearn.maskers import NiftiMasker
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from autospec.errors import AutoSpecError
from autospec.neuroimaging import maps as map_scaling
from autospec.neuroimaging.constrained import Components, check_options, constant_rows, constrained_ica
from autospec.neuroimaging.domains import COMPONENT_NAMES, N_COMPONENTS
from autospec.neuroimaging.orientation import ORIENTATIONS, mirrored, orient
from autospec.neuroimaging.repetition_time import repetition_time_s
from autospec.neuroimaging.scans import ImageLike, as_list, check_same_grid, name_of, open_image, open_scan, read_values
from autospec.neuroimaging.template import check_mask_size, common_mask, mask_on, template_on
from autospec.neuroimaging.timecourses import LOW_PASS_HZ, clean, z_score

MAPS_AS = ("array", "image")


class NeuroMarkICA(TransformerMixin, BaseEstimator):
    """Spatially constrained ICA of scans, with the maps of a template as references.

    ``fit`` settles mask and template on the scans' grid; ``transform`` gives each scan's ``Components``: maps
    (components, voxels of the mask) and time-courses (time, components). Scans are paths or nibabel images, 4-D, all
    on one grid, and in memory one at a time; ``iterate`` keeps the results so, too.

    Args:
        template: 4-D image (x, y, z, maps) or its path; one on another grid or with another affine is resampled to the
            scans' (cubic splines, zero beyond its edge), and that is logged.
        mask: 3-D image or path, nonzero inside, on another grid resampled by the nearest voxel; by default the voxels
            that reach the mean of the first volume, in every scan given to ``fit``.
        preparation: See ``constrained_ica``.
        timecourses: See ``constrained_ica``.
        clean: Detrend, regress motion out where it is given, despike and low-pass the time-courses.
        low_pass_hz: Cutoff of the low-pass in Hz, None for none.
        tr_s: Repetition time in seconds; by default of each scan's BIDS sidecar or header.
        scale: Give z: maps minus the mode of the mean map of all scans in the call, divided by their size; time-courses
            detrended, with std 1.
        maps_as: ``array``, or ``image`` for a 4-D image.
        dtype: See ``constrained_ica``.
        device: See ``constrained_ica``.
        orientation: ``RAS``, ``LAS`` or ``template``: where the voxels of scans run whose headers do not say.

    Attributes:
        mask_img_: The mask.
        template_img_: The template on the scans' grid.
        references_: (components, voxels) The template's maps in the mask.
        names_: What the components are called.
        masker_: nilearn's masker.
        offsets_: (components,) After a scaled transform: what was subtracted from maps.

    Raises:
        AutoSpecError: A file is at fault (it is named: a 3-D scan, one volume, NaN in the mask, another grid than the
            first scan's, a truncated file), a mask has no voxels, a template map is constant in the mask, an option is
            unknown, or, with ``clean``, nothing tells the repetition time.

    Example:
        >>> model = NeuroMarkICA("neuromark.nii.gz", clean=True, tr_s=2.0)
        >>> model.fit_transform(["sub-01_bold.nii.gz", "sub-02_bold.nii.gz"])  # doctest: +SKIP
        [Components(maps=array(...), timecourses=array(...)), Components(maps=array(...), timecourses=array(...))]
    """

    def __init__(
        self,
        template: ImageLike,
        mask: ImageLike | None = None,
        *,
        preparation: str = "rt",
        timecourses: str = "covariance",
        clean: bool = False,
        low_pass_hz: float | None = LOW_PASS_HZ,
        tr_s: float | None = None,
        scale: bool = False,
        maps_as: str = "array",
        dtype: str = "float64",
        device: Any = None,
        orientation: str | None = None,
    ) -> None:
        self.template = template
        self.mask = mask
        self.preparation = preparation
        self.timecourses = timecourses
        self.clean = clean
        self.low_pass_hz = low_pass_hz
        self.tr_s = tr_s
        self.scale = scale
        self.maps_as = maps_as
        self.dtype = dtype
        self.device = device
        self.orientation = orientation

    def fit(self, images: ImageLike | Iterable[ImageLike], y: None = None) -> NeuroMarkICA:
        """Settle mask and template on the grid of the scans; of each, only the first volume is read, if that.

        Args:
            images: One scan or several.
            y: Ignored, for scikit-learn.

        Returns:
            The model itself.

        Raises:
            AutoSpecError: See the class.
        """
        self._check_options()
        scans = [self._open_oriented(image) for image in as_list(images)]
        grid = scans[0]
        for scan in scans[1:]:
            check_same_grid(scan, grid, name_of(grid))
        inside = common_mask(scans) if self.mask is None else mask_on(self.mask, grid)
        self.mask_img_ = Nifti1Image(inside.astype(np.uint8), grid.affine)
        self.template_img_ = template_on(self.template, grid, inside)
        n_volumes = min(scan.shape[3] for scan in scans)
        check_mask_size(inside, self.template_img_, n_volumes, found_by_brightness=self.mask is None)
        n_maps = self.template_img_.shape[3]
        self.names_ = COMPONENT_NAMES if n_maps == N_COMPONENTS else tuple(f"map {i + 1}" for i in range(n_maps))
        # the image's values are taken as they are: centring and scaling are the constrained ICA's
        self.masker_ = NiftiMasker(mask_img=self.mask_img_, standardize=None, reports=False).fit()
        self.references_ = self.masker_.transform(self.template_img_)
        self._check_references()
        return self

    def fit_transform(
        self,
        images: ImageLike | Iterable[ImageLike],
        y: None = None,
        *,
        motion: Sequence[npt.ArrayLike | None] | None = None,
    ) -> list[Components]:
        """``fit``, then ``transform`` of the same scans.

        Args:
            images: One scan or several.
            y: Ignored, for scikit-learn.
            motion: One array (time, covariates) or None per scan.

        Returns:
            The components of every scan.
        """
        scans = as_list(images)
        return self.fit(scans).transform(scans, motion=motion)

    def transform(
        self, images: ImageLike | Iterable[ImageLike], *, motion: Sequence[npt.ArrayLike | None] | None = None
    ) -> list[Components]:
        """The components of every scan.

        Args:
            images: One scan or several.
            motion: One array (time, covariates) or None per scan.

        Returns:
            One ``Components`` per scan, in order.

        Raises:
            AutoSpecError: See the class.
        """
        components = list(self._components(images, motion))
        if self.scale:
            self.offsets_ = map_scaling.modes(sum(one.maps for one in components) / len(components))
            components = [
                Components(map_scaling.scale_maps(one.maps, self.offsets_), one.timecourses) for one in components
            ]
        return [self._convert_maps(one) for one in components]

    def iterate(
        self, images: ImageLike | Iterable[ImageLike], *, motion: Sequence[npt.ArrayLike | None] | None = None
    ) -> Iterator[Components]:
        """As ``transform``, one scan at a time and never two in memory.

        Maps are not scaled, since their offset is the group's: take ``modes`` of their mean, then ``scaled`` of each.

        Args:
            images: One scan or several.
            motion: One array (time, covariates) or None per scan.

        Returns:
            An iterator over the components of each scan.
        """
        return (self._convert_maps(one) for one in self._components(images, motion))

    def image_of(self, maps: npt.NDArray) -> Any:
        """Maps as a 4-D image on the scans' grid, zero outside the mask.

        Args:
            maps: (components, voxels).

        Returns:
            A nibabel image (x, y, z, components).
        """
        check_is_fitted(self)
        return self.masker_.inverse_transform(maps)

    def data_of(self, image: ImageLike) -> npt.NDArray[np.floating]:
        """A scan's values inside the mask.

        Args:
            image: A scan on the fitted grid.

        Returns:
            (time, voxels).

        Raises:
            AutoSpecError: The scan cannot be used; it is named.
        """
        check_is_fitted(self)
        scan = self._open_oriented(image)
        check_same_grid(scan, self.mask_img_, "the mask")
        voxels = read_values(scan)
        gaps = ~np.isfinite(voxels).all(axis=3)
        inside = int((gaps & np.asarray(self.mask_img_.dataobj, dtype=bool)).sum())
        if inside:
            raise AutoSpecError(f"scan {name_of(scan)}: NaN or infinite in {inside} voxels of the mask")
        if gaps.any():
            voxels = np.where(gaps[..., None], 0, voxels)
        # the mask's affine, so that a difference below a thousandth of a mm is none
        data: npt.NDArray[np.floating] = self.masker_.transform(Nifti1Image(voxels, self.mask_img_.affine))
        return data

    def mirrored_references(self) -> npt.NDArray[np.float64]:
        """The template's maps with left and right exchanged: a scan that is closer to them is mirrored.

        Returns:
            (components, voxels of the mask).
        """
        check_is_fitted(self)
        inside = np.asarray(self.mask_img_.dataobj, dtype=bool)
        return mirrored(np.asarray(self.template_img_.dataobj), inside, self.template_img_.affine)

    def _open_oriented(self, image: ImageLike) -> Any:
        template = open_image(self.template, "template", 4)
        return orient(open_scan(image), self.orientation, template)

    def _components(
        self, images: ImageLike | Iterable[ImageLike], motion: Sequence[npt.ArrayLike | None] | None
    ) -> Iterator[Components]:
        check_is_fitted(self)
        scans = as_list(images)
        covariates = [None] * len(scans) if motion is None else list(motion)
        if len(covariates) != len(scans):
            raise AutoSpecError(f"motion is given for {len(covariates)} of {len(scans)} scans; None stands for none")
        return (self._of_scan(scan, moved) for scan, moved in zip(scans, covariates, strict=True))

    def _of_scan(self, image: ImageLike, motion: npt.ArrayLike | None) -> Components:
        # before the minute's work: a repetition time that nothing tells is an error of the input
        tr_s = self._repetition_time_s(image)
        data = self.data_of(image)
        try:
            maps, courses = constrained_ica(
                data,
                self.references_,
                self.preparation,
                timecourses=self.timecourses,
                names=self.names_,
                dtype=self.dtype,
                device=self.device,
            )
            courses = clean(courses, tr_s, motion, self.low_pass_hz) if self.clean else courses
            return Components(maps, z_score(courses) if self.scale else courses)
        except AutoSpecError as error:
            raise AutoSpecError(f"scan {name_of(image)}: {error}") from error

    def _repetition_time_s(self, image: ImageLike) -> float | None:
        if not self.clean or self.low_pass_hz is None:
            return self.tr_s
        return self.tr_s if self.tr_s is not None else repetition_time_s(open_scan(image))

    def _convert_maps(self, components: Components) -> Components:
        if self.maps_as == "array":
            return components
        return Components(self.image_of(components.maps), components.timecourses)

    def _check_options(self) -> None:
        check_options(preparation=self.preparation, timecourses=self.timecourses, dtype=self.dtype)
        if self.orientation not in (None, *ORIENTATIONS):
            raise AutoSpecError(f"orientation={self.orientation}: unknown; allowed are {', '.join(ORIENTATIONS)}")
        if self.maps_as not in MAPS_AS:
            raise AutoSpecError(f"maps_as={self.maps_as}: unknown; allowed are {', '.join(MAPS_AS)}")

    def _check_references(self) -> None:
        constant = constant_rows(self.references_)
        if len(constant) == len(self.references_):
            raise AutoSpecError(f"template {name_of(self.template, 'template')}: does not vary inside the mask")
        if constant:
            named = ", ".join(self.names_[index] for index in constant)
            raise AutoSpecError(f"template {name_of(self.template, 'template')}: constant inside the mask: {named}")
