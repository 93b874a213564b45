#!/bin/sh
# Trains the demo zoo and writes its entries to weights_manifest.json; takes about half an hour on two cores.
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
zoo=demo/zoo

$python -m demo --out build/museum
rm -rf weights_manifest.json "$zoo"
for recipe in everything culture tag; do
    $python -m training fit demo/recipes/$recipe.toml --fold 0 --data build/museum --out "$zoo" \
        --manifest weights_manifest.json
done
rm -rf "$zoo"/cache "$zoo"/tensorboard "$zoo"/folds.csv "$zoo"/*.metrics.csv
$python build_kernel.py ensemble --train build/museum/train.csv --without cnn --without trees
rm -rf second_stage
