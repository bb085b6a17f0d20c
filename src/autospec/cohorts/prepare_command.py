"""Make a prepared cohort: one HDF5 file with everybody's component time-courses, maps, ids and labels.

    autospec prepare FOLDER --template neuromark.nii.gz --output cohort.h5

FOLDER holds preprocessed resting-state scans, all on one grid, and a table of people; or components that somebody has
estimated already. Its layout is recognised, or chosen with --layout:

    bids      participants.tsv, sub-*/[ses-*/]func/*_bold.nii.gz, also fMRIPrep's derivatives (confounds beside them)
    indi      COBRE_phenotypic_data.csv, <ID>/session_1/rest_1/rest.nii.gz
    niak      phenotypic_data.tsv.gz, fmri_<ID>.nii.gz (confounds in fmri_<ID>.tsv.gz)
    gift      GIFT's *_sub001_timecourses_ica_s1_.nii and *_component_ica_s1_.nii, or *_ica_c1-1.mat, *_ica_br1.mat
              (both versions of .mat; maps too, where GIFT's mask is at hand); people are numbered there, so that --ids
              must say who is who
    halfpipe  sub-*/**/*_timeseries.tsv, one column per component
    hdf5      COBRE_dataset (157, 14000), a CSV of components and one of labels (1 SZ, 2 HC)

Scans are decomposed by spatially constrained ICA, one person at a time in each worker. What is done stands in
<output>.parts/ and is used again while scan, table of confounds and settings are the same; the folder may be deleted
when the cohort is complete. Then look at <output>.png and <output>.html, and train:

    autospec run figure=fig5 panel=A dataset.path=cohort.h5

Nobody is left out in silence: who and why is printed at the end and stored in the file.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from autospec.cohorts.folder_layouts import LAYOUTS
from autospec.cohorts.motion import FORMATS
from autospec.cohorts.options import ALLOWED_DIFFERENCES, Options
from autospec.cohorts.prepare import prepare
from autospec.cohorts.quality import draw_quality
from autospec.cohorts.quality_page import write_quality_page
from autospec.errors import AutoSpecError
from autospec.harmless import Formatter
from autospec.neuroimaging.orientation import ORIENTATIONS

log = logging.getLogger("autospec.cohorts")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the cohort that a command line describes; exits with 1 after a mistake.

    Args:
        arguments: The command line without the program; None for ``sys.argv``.
    """
    console = logging.StreamHandler()
    console.setFormatter(Formatter("%(message)s"))
    logging.basicConfig(handlers=[console])
    logging.getLogger("autospec").setLevel(logging.INFO)
    values = _parser().parse_args(arguments)
    try:
        with logging_redirect_tqdm():  # messages stand above the bar instead of tearing it
            _prepare(_options(values))
    except AutoSpecError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on with the next scan")


def _prepare(options: Options) -> None:
    """Make the cohort and the page on its quality, and say who was left out."""
    account = prepare(options)
    account.log(log)
    log.info("%s is ready", options.output)
    page = options.output.with_suffix(".png")
    draw_quality(options.output, page)
    write_quality_page(options.output, options.output.with_suffix(".html"))
    log.info("%s and %s show its quality", page, page.with_suffix(".html"))


def _options(arguments: argparse.Namespace) -> Options:
    values = vars(arguments)
    columns = dict(_column(text) for text in values.pop("column"))
    low_pass_hz = values.pop("low_pass") or None
    confounds = tuple(name for name in (values.pop("confounds") or "").split(",") if name)
    return Options(
        **{**values, "allow": tuple(values["allow"])}, columns=columns, low_pass_hz=low_pass_hz, confounds=confounds
    )


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
    _add_subjects(parser.add_argument_group("people"))
    _add_scans(parser.add_argument_group("scans"))
    _add_motion(parser.add_argument_group("motion"))
    _add_components(parser.add_argument_group("components"))
    add("--jobs", type=int, default=1, help="scans at a time, each in a process of its own (default: 1)")
    return parser


def _add_subjects(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--phenotype", type=Path, help="the table of people, where it is not the layout's own")
    add(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="a column of that table: id, diagnosis, sex, age, site, session, motion or head_size; repeat as needed",
    )
    add(
        "--id-pattern",
        metavar="REGEX",
        help="a regular expression whose first group is the id, for ids that fit it, such as 'NIMH_(\\d+)_.*'",
    )
    add("--ids", type=Path, help="gift: the ids in GIFT's order, one per line, without a header")
    add("--labels", type=Path, help="hdf5: the CSV of labels, where there are several")


def _add_scans(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--template", type=Path, help="the NeuroMark template, 53 maps; resampled to the scans' grid")
    add(
        "--atlas",
        type=Path,
        help="instead of a template: an atlas of labels (3-D, such as Schaefer's) or maps (4-D, such as DiFuMo, MSDL), "
        "whose regions' time-courses nilearn takes out",
    )
    add(
        "--mask",
        type=Path,
        help="a brain mask (default: what is bright in every first volume); gift: the mask of the analysis, which maps "
        "in .mat files need (default: *Mask.nii in the folder)",
    )
    add("--scans", metavar="PATTERN", help="where scans lie, such as 'sub-{id}/func/*run-1_bold.nii.gz'")
    add("--files", dest="files_column", metavar="COLUMN", help="the table's column that names the scans")
    add(
        "--orientation",
        choices=ORIENTATIONS,
        help="of scans whose headers do not say it (sform and qform codes 0): voxels run to the right (RAS), to the "
        "left (LAS), or lie as the template's",
    )
    add(
        "--allow",
        action="append",
        default=[],
        choices=ALLOWED_DIFFERENCES,
        help="let scans differ in repetition time, task or session; repeat as needed",
    )
    add(
        "--all-sessions",
        action="store_true",
        help="take a scan of every session of a subject; dataset.session then says which to use",
    )
    add("--tr", dest="tr_s", type=float, help="repetition time in s (default: BIDS sidecar or header)")
    add("--preparation", default="rt", choices=("rt", "rv", "vn"), help="of volumes (default: rt)")
    add("--raw", dest="clean", action="store_false", help="leave the time-courses as ICA gives them")
    add("--low-pass", type=float, default=0.15, metavar="HZ", help="0 for none (default: 0.15)")
    add("--device", choices=("cpu", "cuda"), help="compute with torch there (default: NumPy)")


def _add_motion(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--motion",
        metavar="PATTERN",
        help="where everybody's six parameters of rigid motion lie, such as '{id}/rp_*.txt': SPM's .txt, FSL's .par, "
        "AFNI's .1D, or a table of fMRIPrep or NIAK (default: what lies beside a scan under its name)",
    )
    add(
        "--motion-format",
        default="auto",
        choices=("auto", *FORMATS),
        help="order and unit of six columns whose file's name says something else (default: by the name's end)",
    )
    add(
        "--confounds",
        metavar="STRATEGY",
        help="fMRIPrep: regress out what nilearn's load_confounds chooses, such as motion,wm_csf,high_pass "
        "(default: the six parameters of motion)",
    )


def _add_components(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--components", type=Path, help="gift, hdf5: a CSV of the components to keep, from 1")
    add("--session", type=int, default=1, help="gift: which session (default: 1)")
    add("--volumes", type=int, help="use so many from the start (default: as many as most have)")
    add(
        "--no-maps",
        dest="maps",
        action="store_false",
        help="store the maximum of the maps alone: all that figure 8 needs",
    )


if __name__ == "__main__":
    main()
