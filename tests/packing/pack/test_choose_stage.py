import dataclasses

import pytest

import build_kernel
from inference.basics.errors import PackError
from inference.manifest.file import read_manifest, write_manifest
from inference.manifest.model import FileEntry, OutOfFold
from inference.manifest.records import Manifest, Stacker
from packing.pack.choose_stage import choose_stage
from tests.conftest import ZOO, Workshop
from zoo.fitted_for import hash_fitted

FILE = FileEntry("second_stage/trees.onnx", "a" * 64)


def declare_stage(zoo: Manifest) -> Manifest:
    """Return the zoo with a second stage that was fitted for it."""
    values = {model.name: dict.fromkeys(model.views, 0.1) for model in zoo.models}
    ensemble = dataclasses.replace(
        zoo.ensemble,
        stackers=(Stacker("trees", "trees", "all", tuple(values), FILE, 0.0, 2),),
        mix={group: {"blend": 0.5, "trees": 0.5} for group in zoo.labels.groups},
        values=values,
        fitted_for=hash_fitted(zoo),
        out_of_fold=OutOfFold(FILE, FILE),
    )
    return dataclasses.replace(zoo, ensemble=ensemble)


def drop_values(zoo: Manifest, name: str) -> Manifest:
    """Return the zoo as if `name` had been added after the fit."""
    known = {one: values for one, values in zoo.ensemble.values.items() if one != name}
    return dataclasses.replace(zoo, ensemble=dataclasses.replace(zoo.ensemble, values=known, fitted_for="b" * 64))


def test_a_fitted_stage_is_packed_without_its_out_of_fold_scores(workshop: Workshop) -> None:
    zoo = declare_stage(read_manifest(workshop.manifest))
    chosen = choose_stage(zoo, without_stackers=False)
    assert chosen == dataclasses.replace(zoo, ensemble=dataclasses.replace(zoo.ensemble, out_of_fold=None))


def test_without_stackers_the_blend_is_left(workshop: Workshop) -> None:
    zoo = declare_stage(read_manifest(workshop.manifest))
    chosen = choose_stage(drop_values(zoo, "tag"), without_stackers=True).ensemble
    assert (chosen.stackers, chosen.mix, chosen.fitted_for, chosen.out_of_fold) == ((), {}, None, None)
    assert chosen.weights == zoo.ensemble.weights


@pytest.mark.parametrize(("ranked", "kept"), [(("everything", "culture", "tag"), True), (("everything", "tag"), False)])
def test_ranks_are_averaged_only_if_every_model_has_them(
    ranked: tuple[str, ...], kept: bool, workshop: Workshop
) -> None:
    zoo = declare_stage(read_manifest(workshop.manifest))
    scales = dict.fromkeys(ranked, (0.0, 0.2, 1.0))
    zoo = dataclasses.replace(zoo, ensemble=dataclasses.replace(zoo.ensemble, ranks=scales))
    assert choose_stage(zoo, without_stackers=True).ensemble.ranks == (scales if kept else {})


def test_a_stage_of_other_models_is_refused_with_their_names(workshop: Workshop) -> None:
    stale = drop_values(declare_stage(read_manifest(workshop.manifest)), "tag")
    with pytest.raises(PackError) as caught:
        choose_stage(stale, without_stackers=False)
    assert str(caught.value) == (
        "the second stage was fitted for other models (added: tag): run `build_kernel.py ensemble` again, or pack the "
        "blend alone with --without-stackers"
    )


def test_the_command_packs_the_blend_of_a_changed_zoo(
    own_workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(drop_values(declare_stage(read_manifest(own_workshop.manifest)), "tag"), own_workshop.manifest)
    given = [
        *("pack", "--manifest", str(own_workshop.manifest), "--onnx", str(own_workshop.onnx)),
        *("--out", str(own_workshop.bundle)),
    ]
    assert build_kernel.main(given) == 1
    assert capsys.readouterr().err.startswith("error: the second stage was fitted for other models (added: tag): ")
    assert build_kernel.main([*given, "--without-stackers"]) == 0
    packed = read_manifest(own_workshop.dataset / "weights_manifest.json")
    assert {model.name for model in packed.models} == set(ZOO)
    assert packed.ensemble.stackers == () and packed.ensemble.fitted_for is None
