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
from omegaconf import OmegaConf, open_dict

from autospec.config.mistakes import explained
from autospec.errors import AutoSpecError
from autospec.plan import Plan, planned

log = logging.getLogger("autospec.sweep")


@dataclass(frozen=True)
class Job:
    """One job of a sweep: what distinguishes it on the command line, and its plan."""

    overrides: tuple[str, ...]
    plan: Plan


class Sweep(BasicSweeper):
    """Composes and checks every job, launches each distinct unfinished one once, and reports what failed.

    All problems are listed at once, and then nothing is launched.
    """

    def sweep(self, arguments: list[str]) -> None:
        jobs = self._jobs(self._combinations(arguments))
        distinct = list({job.plan.folder.path: job for job in jobs}.values())
        unfinished = [job for job in distinct if not job.plan.done]
        log.info(
            "%d jobs: %d to run, %d complete, %d named twice",
            len(jobs),
            len(unfinished),
            len(distinct) - len(unfinished),
            len(jobs) - len(distinct),
        )
        failed = self._failures(unfinished, self._launched(unfinished))
        if failed:
            raise AutoSpecError(f"{len(failed)} of {len(unfinished)} runs failed:\n" + "\n".join(failed))

    def _combinations(self, arguments: list[str]) -> list[list[str]]:
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        batches = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        return [list(job) for batch in batches for job in batch]

    def _jobs(self, combinations: Sequence[Sequence[str]]) -> list[Job]:
        jobs, problems = [], []
        for overrides in combinations:
            try:
                jobs.append(Job(tuple(overrides), self._plan(overrides)))
            except Exception as error:
                if not isinstance(error, AutoSpecError) and type(error).__module__.split(".")[0] not in (
                    "hydra",
                    "omegaconf",
                ):
                    raise
                problems.append(f"{' '.join(overrides)}: {explained(error)}")
        if problems:
            raise AutoSpecError(
                f"{len(problems)} of {len(combinations)} jobs cannot run, so nothing was launched:\n"
                + "\n".join(problems)
            )
        return jobs

    def _plan(self, overrides: Sequence[str]) -> Plan:
        assert self.hydra_context is not None and self.config is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            del config["hydra"]
        OmegaConf.resolve(config)
        return planned(config)

    def _launched(self, jobs: Sequence[Job]) -> list[JobReturn]:
        """What came of each job: one after another with the time left on this machine, else all at once."""
        assert self.launcher is not None
        if not isinstance(self.launcher, BasicLauncher):
            return list(self.launcher.launch([list(job.overrides) for job in jobs], initial_job_idx=0)) if jobs else []
        returns: list[JobReturn] = []
        started = time.monotonic()
        for number, job in enumerate(jobs):
            spent_s = time.monotonic() - started
            left = f", about {_duration(spent_s / number * (len(jobs) - number))} left" if number else ""
            log.info("run %d of %d%s: %s", number + 1, len(jobs), left, " ".join(job.overrides))
            returns += self.launcher.launch([list(job.overrides)], initial_job_idx=number)
        return returns

    def _failures(self, jobs: Sequence[Job], returns: Sequence[JobReturn]) -> list[str]:
        """One line for each job that failed: its run and the first line of its error."""
        lines = []
        for job, returned in zip(jobs, returns, strict=True):
            if returned.status is JobStatus.FAILED:
                error = returned._return_value
                first = (explained(error).splitlines() or [type(error).__name__])[0]
                lines.append(f"  {job.plan.folder.path}  {first}")
        return lines


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
