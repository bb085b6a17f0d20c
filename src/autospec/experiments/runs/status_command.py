"""Say how far a sweep is, from the files of its runs: done, running, failed, stale.

    autospec status
    autospec status /scratch/study

A stale run is unfinished and nobody works on it: it was stopped, killed, or waits to be put back into the queue. The
command that began it goes on with it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from autospec.errors import AutoSpecError
from autospec.experiments.runs.status import statuses, summary


def main() -> None:
    """Print the status of the runs below the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", nargs="?", default="outputs", help="as for `autospec run` (default: outputs)")
    output_dir = Path(parser.parse_args().output_dir)
    try:
        sys.stdout.write(summary(statuses(output_dir), output_dir) + "\n")
    except AutoSpecError as error:
        sys.exit(str(error))
