"""A private one-node SLURM cluster for as long as a command runs.

    python tests/local_slurm.py bash      # a shell on the cluster
    python tests/local_slurm.py pytest -m slurm

Keys, sockets, logs and state lie in a folder of its own, the ports are free ones: nothing of the machine's own
SLURM is read or written, and several may run side by side. Jobs, queues, arrays and signals are real; the two GPUs
are not. The programs are Debian's packages slurm-wlm and munge.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
START_S = 30.0
STOP_S = 10.0

CONFIGURATION = """\
ClusterName=local
SlurmctldHost=localhost
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# a requeued job may begin again once its old credential has run out
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
# no control groups, accounting or network fabric: everything works without them
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1
ReturnToService=2
KillWait=5
GresTypes=gpu
NodeName=localhost CPUs=4 RealMemory=64000 Gres=gpu:2
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """The programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


@contextlib.contextmanager
def local_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """A running cluster that keeps everything in a folder; yields the environment of those who use it."""
    environment = os.environ | {"PATH": _path(), "SLURM_CONF": str(_configured(folder))}
    munged = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key"]
    munged += [f"--{kind}-file={folder}/munge.{kind}" for kind in ("pid", "log", "seed")]
    with contextlib.ExitStack() as daemons:
        daemons.enter_context(_daemon([*munged, f"--socket={folder}/munge.socket"], folder, environment))
        daemons.enter_context(_daemon(["slurmctld", "-D", "-c"], folder, environment))
        daemons.enter_context(_daemon(["slurmd", "-D", "-c"], folder, environment))
        _wait_for(["sinfo", "--noheader", "--format=%t"], "idle", START_S, environment)
        try:
            yield environment
        finally:
            subprocess.run(["scancel", "--full", f"--user={os.getuid()}"], env=environment, check=False)
            with contextlib.suppress(TimeoutError):
                _wait_for(["squeue", "--noheader"], "", STOP_S, environment)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _configured(folder: Path) -> Path:
    """Write the key and the cluster's two files; returns the first."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    devices = "".join(f"NodeName=localhost Name=gpu File=/dev/{name}\n" for name in ("null", "zero"))
    (folder / "gres.conf").write_text(devices)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    controller_port, node_port = _free_ports()
    text = CONFIGURATION.format(folder=folder, user=user, controller_port=controller_port, node_port=node_port)
    (folder / "slurm.conf").write_text(text)
    return folder / "slurm.conf"


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


@contextlib.contextmanager
def _daemon(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with (folder / f"{command[0]}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(command: list[str], answer: str, timeout_s: float, environment: dict[str, str]) -> None:
    """Ask until the answer comes; TimeoutError when it does not."""
    deadline = time.monotonic() + timeout_s
    while True:
        asked = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if asked.returncode == 0 and asked.stdout.strip() == answer:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{' '.join(command)} says {asked.stdout + asked.stderr!r} after {timeout_s} s")
        time.sleep(0.1)


def main() -> None:
    """Run the command that the arguments name on a cluster of its own; exits with its status."""
    if missing():
        sys.exit(f"there is no {missing()[0]}: apt-get install -y --no-install-recommends slurm-wlm munge")
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, local_slurm(Path(folder)) as environment:
        status = subprocess.run(sys.argv[1:] or ["sinfo"], env=environment, check=False).returncode
    sys.exit(status)


if __name__ == "__main__":
    main()
