#!/usr/bin/env bash
# Trains a small ensemble on generated street scenes by day, tests it in fog, night, rain and snow,
# and leaves a table and pictures of what it sees and where it is unsure under demo/. An interrupted
# demo goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:-python3}

"$python" main.py --model ensemble --num_models 2 --backbone mobilenet --total_itrs 200 \
  --output_dir demo --run_name ensemble --continue_training
"$python" main.py --ckpt demo/checkpoints/best_ensemble.pth --test_only --condition adverse \
  --output_dir demo --run_name adverse --overwrite --save_val_results --scores entropy instance \
  --metrics segmentation calibration misclassification \
  | tee demo/table.txt
"$python" -m scripts.contact_sheet demo/results/adverse demo/pictures.png --dataset streets \
  --columns image target prediction entropy instance --images '*_fog' '*_night' '*_rain' '*_snow'
cp demo/runs/ensemble/curves.png demo/curves.png
cp demo/results/adverse/reliability_diagram.png demo/reliability.png

cat <<TXT

demo/table.txt        the scores of the ensemble and of its members in each adverse condition
demo/pictures.png     image, target, prediction, uncertainty of each pixel and of each instance
demo/reliability.png  is it right as often as it is sure? in each condition
demo/curves.png       losses and validation mIoU of the training
demo/results/         every number, and the pictures and maps of every image
TXT
