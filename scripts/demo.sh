#!/usr/bin/env bash
# Trains on generated street scenes by day, tests on fog, night, rain and snow, and leaves a table
# and pictures under demo/. An interrupted demo goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:-python3}
name=deeplabv3plus_mobilenet_streets_os16_seed1
tested=best_${name}_on_streets_val_adverse

"$python" main.py --output_dir demo --continue_training
"$python" main.py --output_dir demo --overwrite --test_only --save_val_results \
  --ckpt "demo/checkpoints/best_$name.pth" --condition adverse | tee demo/table.txt
"$python" -m scripts.contact_sheet "demo/results/$tested" demo/pictures.png \
  --dataset streets --images '*_fog' '*_night' '*_rain' '*_snow'
cp "demo/runs/$name/curves.png" demo/curves.png

cat <<TXT

demo/table.txt     the scores in each adverse condition
demo/pictures.png  image, target, prediction and overlay in each of them
demo/curves.png    loss and validation mIoU of the training
demo/results/      every number, and the pictures of every image
TXT
