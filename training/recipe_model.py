"""What a recipe means in the manifest: its network, and the entry of the network of a fold."""

import dataclasses
import shutil
from pathlib import Path

from inference.basics.errors import TrainingError
from inference.basics.files import hash_file, replace_file
from inference.manifest.labels import Labels
from inference.manifest.model import Factory, Model
from training.recipe import Recipe
from zoo.edit import declare_file
from zoo.networks import Design, create_network, read_design


def describe_recipe(recipe: Recipe, factory: Factory | None, home: Path, labels: Labels) -> tuple[Design, Model]:
    """Return what the recipe's network is built from, and what the manifest's entries of its folds share.

    That is all but the fold, its name and its files. `home`: the manifest's folder. Builds the network once; raises
    ManifestError or CheckpointError if that fails.
    """
    # The network says its mean, std and interpolation, and is built from the rest.
    unknown: tuple[float, ...] = (0.5,) * recipe.channels
    draft = Model(
        name=recipe.name,
        architecture=recipe.architecture,
        group=recipe.group,
        image_size=recipe.image_size,
        mean=unknown,
        std=unknown,
        interpolation="bilinear",
        resize=recipe.resize,
        views=recipe.views,
        merge=recipe.merge,
        member=recipe.name,
        factory=factory,
    )
    design = read_design(draft, home, labels)
    network = create_network(design)
    entry = dataclasses.replace(draft, mean=network.mean, std=network.std, interpolation=network.interpolation)
    return design, entry


def place_factory(recipe: Recipe, home: Path, out: Path) -> Factory | None:
    """Declare the recipe's factory in the manifest's folder `home`; a file elsewhere is copied into `out`.

    None: the recipe has none. Raises TrainingError: `out` has another file of that name; ManifestError: `out` is not in
    `home`.
    """
    if recipe.factory is None:
        return None
    file = Path(recipe.factory.file)
    if not file.is_relative_to(home.resolve()):
        copy = out / file.name
        if copy.exists() and hash_file(copy) != hash_file(file):
            raise TrainingError(f"`factory.file`: {copy} differs from {file}; rename the file, or choose another --out")
        if not copy.exists():
            with replace_file(copy) as temporary:
                shutil.copyfile(file, temporary)
        file = copy
    entry = declare_file(file, home)
    return Factory(entry.file, entry.sha256, recipe.factory.function, recipe.factory.arguments)
