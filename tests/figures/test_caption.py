"""The caption beside a figure."""

from dataclasses import replace

import pandas as pd

from autospec.figures.caption import figure_caption
from autospec.figures.contents import DifferencePanel, LayerTitle, Provenance, SpectraPanel
from autospec.figures.data_facts import DataFacts

LAYERS, PAIR = (LayerTitle("hidden.0", 39, 32), LayerTitle("head", 32, 39)), ("SZ", "HC")
IMBALANCE = {"covariate": "age", "one": "HC", "other": "SZ", "standardised": -0.41, "adjusted": False}
PROVENANCE = Provenance(
    "run-1", "FreeSurfer volumes", False, 7, {"HC": 63.0, "SZ": 9.0}, 15, epochs=300, facts=DataFacts(shape=[39])
)
EMPTY = pd.DataFrame()


def _caption(provenance=PROVENANCE, **changes):
    spectra = SpectraPanel("A", "Autoencoder", LAYERS, ("HC", "SZ"), {}, EMPTY, provenance)
    differences = DifferencePanel(
        letter="G",
        title="SZ against HC · Autoencoder",
        layers=LAYERS,
        pairs=(PAIR,),
        ratios=EMPTY,
        tests=EMPTY,
        cosines=EMPTY,
        provenance=provenance,
        paper=False,
        verdicts={("hidden.0", *PAIR): "p = 0.036, SZ larger", ("head", *PAIR): "not tested"},
        left_out=("SZ / HC is not tested in head: gradients cancel.",),
        grey="Of the maps' values 0.0 % lie beyond the rank bound and 2.0 % below a noise floor.",
        pair_names={PAIR: "SZ (n = 9 < 15) against HC (n = 63)"},
    )
    return figure_caption(4, "mine: FreeSurfer volumes", [spectra, replace(differences, **changes)])


def test_a_caption_says_results_reasons_and_data():
    text = _caption()
    for expected in (
        "**Figure 4. mine: FreeSurfer volumes.**",
        "**(A)** Autoencoder.",
        "**G:** SZ (n = 9 < 15) against HC (n = 63): hidden.0 p = 0.036, SZ larger. SZ / HC is not tested in head: "
        "gradients cancel. Of the maps' values 0.0 % lie beyond",
        "Real data: FreeSurfer volumes (HC n = 63, SZ n = 9). Fewer than 15: SZ.",
        "NOT ADJUSTED for any covariate.",
        "Used were 39 values of each subject, no motion cut.",
        "trained for 300 epochs with seed 7.",
        "Run: A, G run-1.",
        "dark where q < 0.05",
        "association",
    ):
        assert expected in text
    assert "paper's t-test" not in text


def test_adjustment_and_imbalance_are_told_apart():
    facts = DataFacts(adjusted_for=["age"], imbalances=[IMBALANCE | {"adjusted": True}])
    adjusted = _caption(replace(PROVENANCE, facts=facts))
    assert "ADJUSTED: age taken out of every value" in adjusted
    assert "age +0.41 (SZ less HC, taken out)" in adjusted
    plain = _caption(replace(PROVENANCE, facts=DataFacts(imbalances=[IMBALANCE])))
    assert "NOT ADJUSTED" in plain
    assert "age +0.41 (SZ less HC)." in plain


def test_descriptive_margins_are_called_so_and_simulated_data_too():
    text = _caption(replace(PROVENANCE, simulated=True, facts=None, epochs=None), paper=True)
    assert "descriptive, not calibrated" in text
    assert "Simulated data: FreeSurfer volumes" in text
    assert "ADJUSTED" not in text
