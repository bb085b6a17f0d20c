"""A sweep as jobs of a SLURM array: all are waited for, and one that dies does not hide the rest."""

from __future__ import annotations

import contextlib
import getpass
import logging
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
from omegaconf import OmegaConf

from autospec.errors import AutoSpecError
from autospec.experiments.config.messages import in_one_line

if TYPE_CHECKING:
    from submitit import AutoExecutor, Job

log = logging.getLogger("autospec.experiments.launch.sweep")

LARGEST_ARRAY = 1000
"""SLURM's own limit where the cluster sets no other."""
POLL_S = 1.0
QUEUE_POLL_S = (2.0, 60.0)
"""SLURM is asked for its queue more rarely the longer the sweep takes."""
LATE_RESULT_S = 15.0
"""So long may the file of a result take to cross a network file system after its job has left the queue."""


def asks_for_gpus(launcher: Mapping[str, Any]) -> bool:
    """Whether the launcher's keys ask SLURM for a GPU, in any of the ways there are."""
    further = launcher.get("additional_parameters") or {}
    keys = ("gpus", "gpus_per_node", "gpus_per_task", "gpus-per-node", "gpus-per-task", "gpus-per-socket")
    counted = any(source.get(key) for source in (launcher, further) for key in keys)
    return counted or any("gpu" in str(source.get("gres") or "") for source in (launcher, further))


class SlurmSweepLauncher(SlurmLauncher):
    """Submits the jobs of a sweep and returns what came of each.

    A job that was told to stop (USR2) goes back into the queue with the same arguments, and its run finds its own
    checkpoint. What ended is seen from the files of results and from ``squeue``, so that no accounting is needed.
    """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        jobs: list[Job[JobReturn]] = []
        for start in range(0, len(job_overrides), LARGEST_ARRAY):
            jobs += self._submit(job_overrides[start : start + LARGEST_ARRAY], initial_job_idx + start)
        arrays = " ".join(sorted({job.job_id.split("_")[0] for job in jobs}))
        printed = self.params["submitit_folder"].replace("%j", "<job>")
        log.info("%d jobs are with SLURM as %s; what they print is in %s", len(jobs), arrays, printed)
        try:
            return _results(jobs)
        except KeyboardInterrupt:
            log.warning("the jobs go on in SLURM: `make status` shows them, `scancel %s` stops them", arrays)
            raise

    def _submit(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job[JobReturn]]:
        from submitit.core.utils import FailedJobError

        state = Singleton.get_state()
        arguments = [
            (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", state)
            for number, overrides in enumerate(job_overrides, first)
        ]
        try:
            return self._executor().map_array(self, *zip(*arguments, strict=True))
        except FailedJobError as error:
            said = [line for line in str(error).splitlines() if line.startswith("sbatch:")]
            raise AutoSpecError("hydra/launcher=slurm: " + (said or [str(error)])[-1]) from error

    def _executor(self) -> AutoExecutor:
        from submitit import AutoExecutor

        executor = AutoExecutor(
            self.params["submitit_folder"], cluster="slurm", slurm_max_num_timeout=self.params["max_num_timeout"]
        )
        shared = set(OmegaConf.structured(BaseQueueConf).keys())
        given = {key: value for key, value in self.params.items() if key not in ("submitit_folder", "max_num_timeout")}
        executor.update_parameters(**{key if key in shared else f"slurm_{key}": given[key] for key in given})
        return executor


def problem_of_slurm() -> str | None:
    """Why nothing can be submitted from here, or None."""
    missing = [command for command in ("sbatch", "srun", "squeue") if shutil.which(command) is None]
    return f"hydra/launcher=slurm: there is no {missing[0]} on this machine" if missing else None


def _results(jobs: Sequence[Job[JobReturn]]) -> list[JobReturn]:
    """What came of each job, in order, once all have ended."""
    results: dict[str, JobReturn] = {}
    missing_since: dict[str, float] = {}
    started = asked = time.monotonic()
    while len(results) < len(jobs):
        time.sleep(POLL_S)
        now = time.monotonic()
        if now - asked >= min(max((now - started) / 10, QUEUE_POLL_S[0]), QUEUE_POLL_S[1]):
            asked = now
            _note_missing(missing_since, jobs, now)
        before = len(results)
        for job in jobs:
            if job.job_id not in results and (returned := _result_of(job, now - missing_since.get(job.job_id, now))):
                results[job.job_id] = returned
        if len(results) > before:
            log.info("%d of %d jobs have ended", len(results), len(jobs))
    return [results[job.job_id] for job in jobs]


def _note_missing(missing_since: dict[str, float], jobs: Sequence[Job[JobReturn]], now: float) -> None:
    """Note since when each job has not been in the queue; one that was put back is not missing any more."""
    queued = _list_queue()
    if queued is None:
        return
    for job in jobs:
        if job.job_id in queued:
            missing_since.pop(job.job_id, None)
        else:
            missing_since.setdefault(job.job_id, now)


def _list_queue() -> set[str] | None:
    """The jobs of this user that wait, run or are put back; None where SLURM does not answer."""
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return set(answer.stdout.split())
    # not an empty queue: no job is taken for dead while SLURM itself is restarted
    return None


def _result_of(job: Job[JobReturn], missing_s: float) -> JobReturn | None:
    """What a job handed back, or that it died; None while it may still go on."""
    if job.paths.result_pickle.exists():
        return _read_result(job)
    if missing_s < LATE_RESULT_S:
        return None
    return _failure(f"SLURM job {job.job_id} ended without a result (killed or cancelled); see {job.paths.stdout}")


def _read_result(job: Job[JobReturn]) -> JobReturn:
    from submitit.core.utils import pickle_load

    try:
        outcome, content = pickle_load(job.paths.result_pickle)
    except Exception as error:  # noqa: BLE001 (unpickling raises whatever the other machine's packages lead to)
        return _failure(f"the result of SLURM job {job.job_id} cannot be read: {in_one_line(error)}")
    returned: JobReturn = content if outcome == "success" else _failure(content.strip().splitlines()[-1])
    return returned


def _failure(message: str) -> JobReturn:
    return JobReturn(status=JobStatus.FAILED, _return_value=AutoSpecError(message))
