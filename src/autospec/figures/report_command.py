"""One page of HTML that shows a run, or a folder of runs, figures and tables, and needs no network.

    autospec report spectra.h5
    autospec report outputs --output report.html

The page can be sent as it is: plots, pictures and tables are inside. Long files are thinned, and the page says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from autospec.errors import AutoSpecError


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the report that the command line asks for; exits with 1 after a mistake.

    Args:
        arguments: The words of the command line; None takes those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a spectra file, the folder of a run, or a folder of runs and figures")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the page (default: report.html in the folder, or beside the file)"
    )
    options = parser.parse_args(arguments)
    page = options.output or _default_page(options.path)
    try:
        from autospec.figures.report.page import write_report

        notes = write_report(options.path, page)
    except AutoSpecError as error:
        sys.exit(str(error))
    sys.stdout.write("".join(f"not shown: {note}\n" for note in notes) + f"{page}\n")


def _default_page(path: Path) -> Path:
    return path / "report.html" if path.is_dir() else path.with_name(f"{path.stem}_report.html")
