"""docs/survey.md: what the recorder makes of every foreign architecture, counted."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context

import torch
from survey.architectures import ARCHITECTURES
from survey.judge import Verdict, judge

ENGINES = ("hooks", "per_group")
DISTRIBUTIONS = {"torch_geometric": "torch-geometric"}

HEAD = """# Foreign architectures

What AutoSpec makes of {models} architectures that come with packages on the index, none of them written for it. Each is
built as small as it goes, in float64 and in evaluation mode, and recorded on one batch of six samples in two groups and
one sample of none. The reference is independent of the recorder: the output's adjoint of all other samples is set to
zero, and one backward pass gives the group's own gradient. *Exact* means that all singular values of the whole batch
and of both groups agree within 1e-9 of the largest (mamba: 1e-6, since it computes a part in float32 whatever it
is given). *Shared* are those among the exact ones that all samples share (tables of positions): they are stored for
`all`, and NaN for the groups. `make survey` makes this page anew.

{summary}

| architecture | matrices | hooks: exact | shared | per_group: exact | refused, and why |
|---|---|---|---|---|---|
"""


Verdicts = Mapping[str, Mapping[str, Verdict]]
"""Per architecture and engine."""


def judge_all(processes: int) -> Verdicts:
    """Every architecture's verdicts with both engines."""
    # spawned: a fork would take along torch's threads and whatever the tests before it have imported
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return dict(zip(ARCHITECTURES, pool.map(_judge_one, ARCHITECTURES), strict=True))


def _judge_one(name: str) -> Mapping[str, Verdict]:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    return {engine: judge(ARCHITECTURES[name], engine) for engine in ENGINES}


def page(verdicts: Verdicts) -> str:
    """The text of docs/survey.md."""
    rows = [_row(name, of_engine) for name, of_engine in verdicts.items()]
    return HEAD.format(models=len(rows), summary=_summary(verdicts)) + "\n".join(rows) + "\n"


def _row(name: str, of_engine: Mapping[str, Verdict]) -> str:
    hooks, split = of_engine["hooks"], of_engine["per_group"]
    wrong = [f"**{v.engine} is wrong: {', '.join(v.wrong)}**" for v in of_engine.values() if v.wrong]
    reasons = [f"{v.engine}: {_short(next(iter(v.refused.values())))}" for v in of_engine.values() if v.refused]
    said = "; ".join([*wrong, *reasons]).replace("|", "/")
    return f"| {name} | {hooks.matrices} | {len(hooks.exact)} | {len(hooks.shared)} | {len(split.exact)} | {said} |"


def _short(reason: str) -> str:
    line = reason.splitlines()[0]
    return line if len(line) < 140 else line[:137] + "..."


def _summary(verdicts: Verdicts) -> str:
    counts: Counter[str] = Counter()
    for of_engine in verdicts.values():
        counts["matrices"] += of_engine["hooks"].matrices
        counts["by either"] += len(set().union(*(verdict.exact for verdict in of_engine.values())))
        for engine, verdict in of_engine.items():
            counts[engine] += len(verdict.exact)
            counts["wrong"] += len(verdict.wrong)
            counts[f"{engine} whole"] += len(verdict.exact) == verdict.matrices
    packages = dict.fromkeys(architecture.package for architecture in ARCHITECTURES.values())
    versions = ", ".join(f"{package} {version(DISTRIBUTIONS.get(package, package))}" for package in packages)
    return (
        f'Of {counts["matrices"]} trained matrices, {counts["hooks"]} are exact with `engine="hooks"` '
        f"({counts['hooks whole']} of {len(verdicts)} architectures whole), {counts['per_group']} with "
        f'`engine="per_group"` ({counts["per_group whole"]} whole), {counts["by either"]} with one of the two; '
        f"{counts['wrong']} are wrong. Versions: {versions}, torch {torch.__version__}."
    )
