"""The runs that a figure is made of, planned once: those of its panels, and each again with further seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from autospec.errors import AutoSpecError
from autospec.experiments import datasets
from autospec.experiments.config.grid import DIFFERENCE_PANELS
from autospec.experiments.config.pairs import pairs_in_front
from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.plan import Plan, plan_run
from autospec.store.schema import GRADIENT

SUPPLEMENT = ("C", "D", "E", "F")
"""The panels whose group differences are tested and drawn, too, where the supplement is asked for."""


@dataclass(frozen=True)
class PanelPlan:
    """The runs of one panel.

    Attributes:
        letter: The panel's letter.
        config: Its configuration.
        seeds: Its run, then those that differ from it in their seed (``figure.seeds``).
        is_tested: Whether its group differences are tested.
    """

    letter: str
    config: ExperimentConfig
    seeds: tuple[Plan, ...]
    is_tested: bool


@dataclass(frozen=True)
class FigurePlan:
    """The runs of one figure.

    Attributes:
        config: The configuration of its first panel, from which all that is the whole figure's is taken.
        panels: The panels A–H.
        runs: Every run, once: panels may share one.
        tested_runs: The runs whose group differences are tested, each once.
    """

    config: ExperimentConfig
    panels: tuple[PanelPlan, ...]
    runs: tuple[Plan, ...]
    tested_runs: tuple[Plan, ...]


def plan_figure(plans: Mapping[str, Plan]) -> FigurePlan:
    """Plan a figure; nothing is written and torch is not imported.

    Args:
        plans: The plan of each panel's run, by the panel's letter.

    Returns:
        The figure's runs, those of further seeds among them.

    Raises:
        AutoSpecError: A run of another seed cannot be planned.
    """
    panels = tuple(_plan_panel(letter, plan) for letter, plan in plans.items())
    tested = [panel for panel in panels if panel.is_tested]
    return FigurePlan(panels[0].config, panels, _each_once(panels), _each_once(tested))


def _plan_panel(letter: str, plan: Plan) -> PanelPlan:
    config = plan.config
    further = [seed for seed in dict.fromkeys(config.figure.seeds) if seed != config.seed]
    seeds = (plan, *(plan_run(replace(config, seed=seed)) for seed in further))
    is_tested = letter in DIFFERENCE_PANELS or (letter in SUPPLEMENT and config.supplement)
    return PanelPlan(letter, config, seeds, is_tested)


def _each_once(panels: Iterable[PanelPlan]) -> tuple[Plan, ...]:
    return tuple({plan.folder.path: plan for panel in panels for plan in panel.seeds}.values())


def check_comparisons(figure: FigurePlan) -> None:
    """Check that what a figure compares will be there once its runs are trained.

    Args:
        figure: The figure's plan.

    Raises:
        AutoSpecError: Gradient spectra are not recorded, or a pair names no group.
    """
    configs = [panel.config for panel in figure.panels if panel.is_tested]
    # one of each data set: loading is what costs
    for config in {repr(config.dataset): config for config in configs}.values():
        statistics = config.introspection.statistics
        if GRADIENT not in statistics:
            raise AutoSpecError(f"introspection.statistics={statistics}: a figure shows gradient spectra; add gradient")
        data = datasets.load(config.dataset)
        pairs_in_front(config.figure.pairs, [*data.groups, *data.margins])
