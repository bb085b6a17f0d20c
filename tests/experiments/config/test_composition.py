import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from autospec.experiments.config.composition import Composition
from autospec.experiments.config.messages import explain
from autospec.experiments.config.registry import register_schemas


@pytest.fixture
def loader(request):
    register_schemas()
    conf = request.config.rootpath / "conf"
    with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
        setup_globals()
        yield GlobalHydra.instance().config_loader()


@pytest.fixture
def composition(loader):
    master = loader.load_configuration("config", [], RunMode.MULTIRUN)
    return Composition(loader, master)


JOBS = {
    "nothing": [],
    "values": ["width=8", "seed=3", "learning_rate=1e-2"],
    "groups": ["figure=fig5", "panel=C", "variant=deep_thin"],
    "both": ["width=8", "dataset=sinusoid", "introspection.statistics=[gradient,activation]", "architecture=lstm"],
    "a value of the group that is chosen": ["dataset=freesurfer", "dataset.people.HC.men=5", "dataset.seed=7"],
    "an exception of a panel": ["figure=fig2", "panel=F", "width=16"],
    "a mapping for a group": ["dataset={per_digit: 5}"],
    "an added entry": ["+dataset.labels.sex.other=[x]", "dataset=freesurfer"],
    "one key twice": ["width=8", "width=9"],
}


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_what_hydra_composes(composition, job):
    expected = compose("config", overrides=JOBS[job])
    OmegaConf.resolve(expected)
    for _ in range(2):  # composed, and then from what is kept
        found = composition.config(JOBS[job])
        assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected)
        assert OmegaConf.get_type(found) is OmegaConf.get_type(expected)
        assert OmegaConf.get_type(found.dataset) is OmegaConf.get_type(expected.dataset)


def test_jobs_do_not_write_into_one_another(composition):
    assert composition.config(["width=8"]).width == 8
    assert composition.config([]).width == 32


MISTAKES = {
    "a misspelled key": ["widht=3"],
    "a key of another group": ["dataset=sinusoid", "dataset.digits=[1]"],
    "an unknown choice": ["figure=fig99"],
    "a wrong type": ["width=wide"],
    "a value that is none": ["task=regression"],
    "a group by a number": ["figure=1"],
    "an addition of what is there": ["+width=3"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_explained_as_hydra_would_have_it(composition, mistake):
    errors = (HydraException, OmegaConfBaseException, ValueError)
    with pytest.raises(errors) as expected:
        compose("config", overrides=MISTAKES[mistake])
    with pytest.raises(errors) as found:
        composition.config(MISTAKES[mistake])
    assert explain(found.value) == explain(expected.value)


def test_groups_are_composed_once_for_any_number_of_values(composition, monkeypatch):
    composed = []
    load = ConfigLoaderImpl.load_sweep_config

    def counted(self, master, overrides):
        composed.append(overrides)
        return load(self, master, overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counted)
    for seed in range(20):
        composition.config(["figure=fig1", "panel=A", f"seed={seed}"])
    assert composed == [["figure=fig1", "panel=A"]]


def test_the_files_of_hydra_are_not_among_a_run_s_keys(composition):
    config = composition.config([])
    with open_dict(config):
        assert "hydra" not in config
