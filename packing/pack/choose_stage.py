"""Which second stage is packed: that of the manifest, or the blend alone."""

import dataclasses

from inference.basics.errors import PackError
from inference.manifest.model import FEATURES
from inference.manifest.records import Manifest, remove_stackers
from zoo.fitted_for import describe_changes, is_stale


def choose_stage(manifest: Manifest, *, without_stackers: bool) -> Manifest:
    """Return the manifest with the second stage to pack; its out-of-fold scores stay at home.

    `without_stackers`: the blend alone, with the rules that decide where a stacker fails, and without models for
    features. It averages scores instead of
    ranks if a model was added after the fit of the ranks. Raises PackError: the second stage was fitted for other
    models.
    """
    if without_stackers:
        manifest = remove_stackers(manifest)
        weighed = {name for weights in manifest.ensemble.weights.values() for name in weights}
        ranks = manifest.ensemble.ranks if weighed <= set(manifest.ensemble.ranks) else {}
        ensemble = dataclasses.replace(manifest.ensemble, ranks=ranks, fitted_for=None, out_of_fold=None)
        read = tuple(model for model in manifest.models if model.group != FEATURES)  # nobody reads the others
        manifest = dataclasses.replace(manifest, models=read)
    elif is_stale(manifest):
        raise PackError(
            f"the second stage was fitted for other models ({describe_changes(manifest)}): run `build_kernel.py "
            "ensemble` again, or pack the blend alone with --without-stackers"
        )
    else:
        ensemble = dataclasses.replace(manifest.ensemble, out_of_fold=None)
    return dataclasses.replace(manifest, ensemble=ensemble)
