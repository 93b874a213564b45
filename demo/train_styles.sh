#!/bin/sh
# Trains the networks of `make demo TASK=multiclass`; takes about ten minutes on two cores.
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
museum=build/museum-multiclass
zoo=build/zoo-multiclass

$python -m demo --task multiclass --out "$museum"
$python build_kernel.py init "$museum" --out "$zoo" --competition museum-styles --metric accuracy --force
for recipe in style pattern; do
    $python -m training fit demo/recipes/$recipe.toml --fold 0 --data "$museum" --out "$zoo"
done
rm -rf demo/zoo_multiclass
mkdir demo/zoo_multiclass
cp "$zoo"/*.safetensors "$zoo"/*.oof.npy "$zoo"/*.oof.ids.txt demo/zoo_multiclass
