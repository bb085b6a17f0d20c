"""A sweep that is checked as a whole before its first job starts, and that no failed job stops."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf.errors import OmegaConfBaseException

from autospec.errors import AutoSpecError
from autospec.experiments.config.composition import Composition
from autospec.experiments.config.messages import explain, in_one_line
from autospec.experiments.config.schema import Device
from autospec.experiments.launch.slurm import SlurmSweepLauncher, asks_for_gpus, problem_of_slurm
from autospec.experiments.launch.workers import workers_released
from autospec.experiments.plan import Plan, plan_run
from autospec.experiments.runs.folder import holder
from autospec.experiments.runs.progress import duration

log = logging.getLogger("autospec.experiments.launch.sweep")


@dataclass(frozen=True)
class Job:
    """One job of a sweep: its command line, what distinguishes it from other jobs, its plan, whether it is done."""

    overrides: tuple[str, ...]
    label: str
    plan: Plan
    done: bool


class Sweep(BasicSweeper):
    """Composes and checks every job, launches each distinct unfinished one once, and reports what failed.

    All problems are listed at once, and then nothing is launched.
    """

    def sweep(self, arguments: list[str]) -> None:
        jobs, problems = self._check(self._combinations(arguments))
        distinct = list({job.plan.folder.path: job for job in reversed(jobs)}.values())[::-1]
        unfinished = [job for job in distinct if not job.done]
        taken = {job.plan.folder.path: who for job in unfinished if (who := holder(job.plan.folder))}
        free = [job for job in unfinished if job.plan.folder.path not in taken]
        problems += self._launcher_problems(free) if free else []
        if problems:
            raise AutoSpecError("nothing was launched:\n" + "\n".join(f"  {problem}" for problem in problems))
        log.info(
            "%d jobs: %d to run, %d complete, %d named twice%s",
            len(jobs),
            len(free),
            len(distinct) - len(unfinished),
            len(jobs) - len(distinct),
            f", {len(taken)} being worked on elsewhere" if taken else "",
        )
        failed = [f"  {path}  is being worked on by {who}" for path, who in taken.items()]
        failed += self._failures(free, self._launch(free))
        if failed:
            raise AutoSpecError(
                f"{len(failed)} of {len(unfinished)} runs failed:\n" + "\n".join(failed) + "\n"
                "(run.log in each folder has more; the same command again makes only what is missing)"
            )

    def _combinations(self, arguments: list[str]) -> list[list[str]]:
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        batches = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        return [list(job) for batch in batches for job in batch]

    def _check(self, combinations: Sequence[Sequence[str]]) -> tuple[list[Job], list[str]]:
        """The jobs that can run, and each distinct problem of the others with how many have it."""
        assert self.hydra_context is not None and self.config is not None
        composition = Composition(self.hydra_context.config_loader, self.config)
        common = set.intersection(*map(set, combinations)) if len(combinations) > 1 else set()
        jobs: list[Job] = []
        labels_of: dict[str, list[str]] = {}
        for overrides in combinations:
            label = " ".join(text for text in overrides if text not in common)
            try:
                plan = plan_run(composition.config(overrides))
                jobs.append(Job(tuple(overrides), label, plan, not plan.to_run))
            except (AutoSpecError, HydraException, OmegaConfBaseException) as error:
                for problem in explain(error).splitlines():
                    labels_of.setdefault(problem, []).append(label)
        return jobs, [problem + _among(labels, len(combinations)) for problem, labels in labels_of.items()]

    def _launcher_problems(self, jobs: Sequence[Job]) -> list[str]:
        """Why the launcher cannot give the jobs what they need."""
        labels = [job.label for job in jobs if job.plan.config.device is Device.cuda]
        if isinstance(self.launcher, SlurmSweepLauncher):
            problem_of_launcher, gpu = problem_of_slurm(), _gpu_not_asked(self.launcher) if labels else None
        else:
            problem_of_launcher, gpu = _problem_of_processes(self.launcher), _gpu_not_here() if labels else None
        return [problem for problem in (problem_of_launcher, gpu and gpu + _among(labels, len(jobs))) if problem]

    def _launch(self, jobs: Sequence[Job]) -> list[JobReturn]:
        """What came of each job: one after another with the time left on this machine, else all at once."""
        assert self.launcher is not None
        if not jobs:
            return []
        if not isinstance(self.launcher, BasicLauncher):
            return self._launch_at_once(jobs)
        returns: list[JobReturn] = []
        started = time.monotonic()
        for number, job in enumerate(jobs):
            spent_s = time.monotonic() - started
            left = f", about {duration(spent_s / number * (len(jobs) - number))} left" if number else ""
            log.info("run %d of %d%s: %s", number + 1, len(jobs), left, job.label)
            returns += self.launcher.launch([list(job.overrides)], initial_job_idx=number)
        return returns

    def _launch_at_once(self, jobs: Sequence[Job]) -> list[JobReturn]:
        assert self.launcher is not None
        try:
            with workers_released():
                return list(self.launcher.launch([list(job.overrides) for job in jobs], initial_job_idx=0))
        except AutoSpecError:
            raise
        except Exception as error:  # noqa: BLE001 (joblib gives up all jobs when a process of one is killed)
            message = f"was not finished: {in_one_line(error)}"
            failed = JobReturn(status=JobStatus.FAILED, _return_value=AutoSpecError(message))
            return [JobReturn(status=JobStatus.COMPLETED) if job.plan.done else failed for job in jobs]

    def _failures(self, jobs: Sequence[Job], returns: Sequence[JobReturn]) -> list[str]:
        """One line for each job that failed: its run and the first line of its error."""
        return [
            f"  {job.plan.folder.path}  {in_one_line(returned._return_value)}"
            for job, returned in zip(jobs, returns, strict=True)
            if returned.status is JobStatus.FAILED
        ]


def _gpu_not_asked(launcher: SlurmSweepLauncher) -> str | None:
    if asks_for_gpus(launcher.params):
        return None
    return "device=cuda: hydra/launcher=slurm asks for no GPU; add hydra.launcher.gpus_per_node=1"


def _gpu_not_here() -> str | None:
    from autospec.experiments.training.devices import device_name  # loads torch, which the runs will need anyway

    try:
        device_name(Device.cuda)
    except AutoSpecError as error:
        return str(error)
    return None


def _problem_of_processes(launcher: Launcher | None) -> str | None:
    """Why joblib cannot start as many processes as it is told to, or None."""
    processes = getattr(launcher, "joblib", {"n_jobs": 1})["n_jobs"]
    if isinstance(processes, int) and (processes > 0 or processes == -1):
        return None
    return f"hydra.launcher.n_jobs={processes}: must be 1 or more, or -1 for one for each processor"


def _among(labels: Sequence[str], of: int) -> str:
    """Which jobs have a problem, in brackets: the one, or the first of several; nothing where there is only one."""
    if not labels or of == 1:
        return ""
    return f" ({len(labels)} of {of} jobs, the first: {labels[0]})" if len(labels) > 1 else f" ({labels[0]})"
