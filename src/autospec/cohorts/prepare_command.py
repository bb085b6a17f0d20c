"""Make a prepared cohort: one HDF5 file with everybody's component time-courses, maps, ids and labels.

    autospec prepare FOLDER --template neuromark.nii.gz --output cohort.h5

FOLDER holds preprocessed resting-state scans, all on one grid, and a table of people; or components that somebody has
estimated already. Its layout is recognised, or chosen with --layout:

    bids   participants.tsv, sub-*/[ses-*/]func/*_bold.nii.gz (confounds of fMRIPrep beside them)
    indi   COBRE_phenotypic_data.csv, <ID>/session_1/rest_1/rest.nii.gz
    niak   phenotypic_data.tsv.gz, fmri_<ID>.nii.gz (confounds in fmri_<ID>.tsv.gz)
    gift   GIFT's *_sub001_timecourses_ica_s1_.nii and *_component_ica_s1_.nii, or *_ica_c1-1.mat, *_ica_br1.mat
           (both versions of .mat; maps too, where GIFT's mask is at hand); people are numbered there, so that --ids
           must say who is who
    hdf5   COBRE_dataset (157, 14000), a CSV of components and one of labels (1 SZ, 2 HC)

Scans are decomposed by spatially constrained ICA, one person at a time in each worker. What is done stands in
<output>.parts/ and is used again while scan, table of confounds and settings are the same; the folder may be deleted
when the cohort is complete. Then look at <output>.png, and train:

    autospec run figure=fig5 panel=A dataset.path=cohort.h5

Nobody is left out in silence: who and why is printed at the end and stored in the file.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from autospec.cohorts.exclusions import Account
from autospec.cohorts.folder_layouts import LAYOUTS
from autospec.cohorts.options import Options
from autospec.cohorts.prepare import prepare
from autospec.cohorts.quality import draw_quality
from autospec.errors import AutoSpecError

log = logging.getLogger("autospec.cohorts")


def main() -> None:
    """Prepare the cohort that the command line describes; exits with 1 after a mistake."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("autospec").setLevel(logging.INFO)
    arguments = _parser().parse_args()
    try:
        with logging_redirect_tqdm():  # messages stand above the bar instead of tearing it
            _prepare(_options(arguments))
    except AutoSpecError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on with the next scan")


def _prepare(options: Options) -> None:
    """Make the cohort and the page on its quality, and say who was left out."""
    account: Account = prepare(options)
    account.log(log)
    log.info("%s is ready", options.output)
    page = options.output.with_suffix(".png")
    draw_quality(options.output, page)
    log.info("%s shows its quality", page)


def _options(arguments: argparse.Namespace) -> Options:
    values = vars(arguments)
    columns = dict(_column(text) for text in values.pop("column"))
    low_pass_hz = values.pop("low_pass") or None
    return Options(**values, columns=columns, low_pass_hz=low_pass_hz)


def _column(text: str) -> tuple[str, str]:
    ours, equals, theirs = text.partition("=")
    if not equals or not ours:
        raise AutoSpecError(f"--column {text}: write OURS=THEIRS, such as diagnosis='Subject Type'")
    return ours, theirs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("folder", type=Path, help="the cohort's files")
    add("--output", type=Path, default=Path("cohort.h5"), help="the prepared cohort (default: cohort.h5)")
    add("--layout", choices=LAYOUTS, default="auto", help="how the folder is laid out (default: auto)")
    subjects = parser.add_argument_group("people")
    subjects.add_argument("--phenotype", type=Path, help="the table of people, where it is not the layout's own")
    subjects.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="a column of that table: id, diagnosis, sex, age, site, motion or head_size; repeat as needed",
    )
    subjects.add_argument("--ids", type=Path, help="gift: the ids in GIFT's order, one per line, without a header")
    subjects.add_argument("--labels", type=Path, help="hdf5: the CSV of labels, where there are several")
    scans = parser.add_argument_group("scans")
    scans.add_argument("--template", type=Path, help="the NeuroMark template, 53 maps; resampled to the scans' grid")
    scans.add_argument(
        "--mask",
        type=Path,
        help="a brain mask (default: what is bright in every first volume); gift: the mask of the analysis, which maps "
        "in .mat files need (default: *Mask.nii in the folder)",
    )
    scans.add_argument("--scans", metavar="PATTERN", help="where scans lie, such as 'sub-{id}/func/*run-1_bold.nii.gz'")
    scans.add_argument("--files", dest="files_column", metavar="COLUMN", help="the table's column that names the scans")
    scans.add_argument(
        "--motion",
        metavar="PATTERN",
        help="where everybody's six parameters of rigid motion lie, such as '{id}/rp_*.txt': SPM's .txt, FSL's .par, "
        "AFNI's .1D, or a table of fMRIPrep or NIAK (default: what lies beside a scan under its name)",
    )
    scans.add_argument("--tr", dest="tr_s", type=float, help="repetition time in s (default: BIDS sidecar or header)")
    scans.add_argument("--preparation", default="rt", choices=("rt", "rv", "vn"), help="of volumes (default: rt)")
    scans.add_argument("--raw", dest="clean", action="store_false", help="leave the time-courses as ICA gives them")
    scans.add_argument("--low-pass", type=float, default=0.15, metavar="HZ", help="0 for none (default: 0.15)")
    scans.add_argument("--device", choices=("cpu", "cuda"), help="compute with torch there (default: NumPy)")
    components = parser.add_argument_group("components")
    components.add_argument("--components", type=Path, help="gift, hdf5: a CSV of the components to keep, from 1")
    components.add_argument("--session", type=int, default=1, help="gift: which session (default: 1)")
    components.add_argument("--volumes", type=int, help="use so many from the start (default: as many as most have)")
    components.add_argument(
        "--no-maps",
        dest="maps",
        action="store_false",
        help="store the maximum of the maps alone: all that figure 8 needs",
    )
    add("--jobs", type=int, default=1, help="scans at a time, each in a process of its own (default: 1)")
    return parser
