#!/bin/sh
# Trains the demo's zoo from nothing and declares it in weights_manifest.json: about half an hour on two cores.
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
zoo=demo/zoo

fit_and_add() { # NAME ARCHITECTURE GROUP EPOCHS
    $python -m training fit --data build/museum --architecture "$2" --image-size 96 --group "$3" --epochs "$4" \
        --smallest-crop 0.85 --precision fp16 --name "$1" --out "$zoo"
    $python build_kernel.py add "$zoo/$1.safetensors" --architecture "$2" --image-size 96 --group "$3" --fold 0 \
        --oof "$zoo/$1.oof.npy" --labels "$zoo/labels.csv" --train build/museum/train.csv
}

$python -m demo --out build/museum
mkdir -p "$zoo"
cp build/museum/labels.csv "$zoo/labels.csv"
rm -f weights_manifest.json
fit_and_add everything test_resnet all 20
fit_and_add culture test_efficientnet culture 12
fit_and_add tag test_byobnet tag 20
rm -f "$zoo"/*.metrics.csv
$python -m training decide --train build/museum/train.csv
