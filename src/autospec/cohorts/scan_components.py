"""Parts out of scans: mask and template settled for the cohort, then constrained ICA of one scan after the other."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from autospec.cohorts.exclusions import Account
from autospec.cohorts.motion import read_fmriprep_confounds, read_motion
from autospec.cohorts.options import Options
from autospec.cohorts.source_files import Source
from autospec.cohorts.subject_file import Part, has_part, part_file, part_key, write_part
from autospec.errors import AutoSpecError
from autospec.neuroimaging.atlas import AtlasTimecourses
from autospec.neuroimaging.neuromark import NeuroMarkICA
from autospec.neuroimaging.orientation import closeness

log = logging.getLogger(__name__)

VERSION = 2
"""Raised when the same scan and settings give other numbers, so that parts of before are made anew."""

Outcome = tuple[str, str | None]
"""A subject's id, and why their scan failed, if it did."""


@dataclass(frozen=True)
class Job:
    """One scan to be prepared into a file."""

    source: Source
    file: Path
    key: str
    motion_format: str = "auto"
    confounds: tuple[str, ...] = ()


def fit_model(sources: Sequence[Source], options: Options) -> NeuroMarkICA:
    """The template and the mask on the grid of these scans.

    Args:
        sources: The usable scans.
        options: Template, mask and settings.

    Returns:
        The fitted model.

    Raises:
        AutoSpecError: Template or mask do not fit the scans.
    """
    model = NeuroMarkICA(
        options.template,
        options.mask,
        preparation=options.preparation,
        clean=options.clean,
        low_pass_hz=options.low_pass_hz,
        tr_s=options.tr_s,
        device=options.device,
        orientation=options.orientation,
    )
    try:
        return model.fit([source.file for source in sources])
    except AutoSpecError as error:
        raise AutoSpecError(str(error).replace("give a mask", "give --mask")) from error


def fit_atlas(sources: Sequence[Source], options: Options) -> AtlasTimecourses:
    """The atlas on the grid of these scans.

    Args:
        sources: The usable scans.
        options: Atlas, mask and settings.

    Returns:
        The fitted model.

    Raises:
        AutoSpecError: The atlas does not fit the scans.
    """
    model = AtlasTimecourses(
        options.atlas,
        options.mask,
        clean=options.clean,
        low_pass_hz=options.low_pass_hz,
        tr_s=options.tr_s,
        orientation=options.orientation,
    )
    return model.fit([source.file for source in sources])


def prepare_parts(
    sources: Sequence[Source], model: NeuroMarkICA | AtlasTimecourses, options: Options, account: Account
) -> dict[str, Path]:
    """The part file of each subject; whoever's scan fails is named, and the others go on.

    Args:
        sources: The usable scans.
        model: The fitted model.
        options: What the user asks for.
        account: Takes a line for every subject left out.

    Returns:
        The part file of each subject's id.

    Raises:
        AutoSpecError: A worker was killed.
    """
    folder = options.output.with_name(options.output.name + ".parts")
    # only now: a mistake in the input leaves nothing behind
    options.make_folder(folder)
    jobs = [_job(source, model, options, folder) for source in sources]
    todo = [job for job in jobs if not has_part(job.file, job.key)]
    if len(todo) < len(jobs):
        log.info("%d of %d scans are prepared already, in %s", len(jobs) - len(todo), len(jobs), folder)
    for subject, reason in _outcomes(todo, model, options.jobs):
        if reason is not None:
            account.drop(subject, reason)
    return {job.source.id: job.file for job in jobs if job.source.id not in account.dropped}


def prepare_scan(model: NeuroMarkICA | AtlasTimecourses, job: Job) -> Outcome:
    """Constrained ICA of one scan, or its regions, into its part; (id, None), or (id, why it failed).

    Args:
        model: The fitted model.
        job: The scan, and where its part goes.

    Returns:
        The subject's id, and why the scan failed, if it did.
    """
    try:
        motion = read_motion(job.source.confounds, job.motion_format)
        regressors = motion.parameters
        if job.confounds:
            regressors = read_fmriprep_confounds(job.source.file, job.confounds)
        part = replace(
            _part(model, job, regressors),
            motion_mm=motion.mean_displacement_mm,
            regressors=0 if regressors is None else regressors.shape[1],
        )
        write_part(job.file, part, job.key)
    except AutoSpecError as error:
        return job.source.id, str(error)
    except OSError as error:
        return job.source.id, f"{job.file}: cannot be written ({error.strerror or error})"
    return job.source.id, None


def _part(model: NeuroMarkICA | AtlasTimecourses, job: Job, regressors: npt.NDArray | None) -> Part:
    """A subject's components with their maps, or the time-courses of its regions."""
    if isinstance(model, AtlasTimecourses):
        return Part(model.extract(job.source.file, regressors))
    components = model.transform(job.source.file, motion=[regressors])[0]
    data = model.data_of(job.source.file)
    return Part(
        components.timecourses,
        components.maps,
        _correlations(components.maps, model.references_),
        closeness=closeness(data, model.references_),
        mirrored=closeness(data, model.mirrored_references()),
    )


def _job(source: Source, model: NeuroMarkICA | AtlasTimecourses, options: Options, folder: Path) -> Job:
    if isinstance(model, AtlasTimecourses):
        digest = hashlib.sha256(np.ascontiguousarray(model.atlas_img_.dataobj).tobytes())
        digest.update(b"" if options.mask is None else options.mask.read_bytes())
    else:
        digest = hashlib.sha256(np.ascontiguousarray(model.references_).tobytes())
        digest.update(np.asarray(model.mask_img_.dataobj).tobytes())
    # the repetition time may stand in a sidecar, which can be mended while the scan stays as it is
    settings = {**options.settings(), "model": digest.hexdigest(), "tr_s": source.tr_s, "version": VERSION}
    key = part_key({"scan": source.file, "confounds": source.confounds}, settings)
    return Job(source, part_file(folder, source.id), key, options.motion_format, options.confounds)


def _outcomes(jobs: Sequence[Job], model: NeuroMarkICA | AtlasTimecourses, workers: int) -> Iterator[Outcome]:
    """What became of each scan, with a bar on a terminal and a line per scan elsewhere."""
    work = partial(prepare_scan, model)
    with tqdm(total=len(jobs), desc="scans", unit="scan", disable=None, leave=False) as bar:
        for done, outcome in enumerate(_mapped(work, jobs, workers), start=1):
            bar.update()
            if bar.disable:
                log.info("%d of %d scans: %s", done, len(jobs), outcome[0])
            yield outcome


def _mapped(
    work: partial[tuple[str, str | None]], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[str, str | None]]:
    """In this process for one worker, else in new ones, each of which holds one scan at a time."""
    if min(workers, len(jobs)) < 2:
        yield from map(work, jobs)
        return
    try:
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
            yield from pool.map(work, jobs)
    except BrokenProcessPool as error:
        raise AutoSpecError(
            f"--jobs {workers}: a worker was killed, perhaps for want of memory; the same command with fewer goes on"
        ) from error


def _correlations(maps: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(components,) The correlation of each map with its reference."""
    one = maps - maps.mean(axis=1, keepdims=True)
    other = references - references.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / norms)
