#!/usr/bin/env bash
# Both experiments on CamVid, where the data is small: offline (masks of a deep ensemble) and online
# (an ensemble that weights its own training), each against cross entropy; then the same trained by
# day only and tested at dusk and on a sequence never seen. Ends in a report.
#
#   DATA_ROOT=CAMVID [SEEDS="1 2 3"] [EXTRA="..."] scripts/instance_uncertainty/camvid.sh
#
# SPLITS: what to train on, train and train_day. See ../experiment.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh"
require_data "CamVid's folder, with train/, trainannot/, val/ ..."
MEMBERS=${MEMBERS:-"mobilenet:11 mobilenet:12 mobilenet:13"}
SEEDS=${SEEDS:-"1 2 3"}
SPLITS=${SPLITS:-"train train_day"}
OUT=${OUT:-experiments/camvid}
ensemble=(--model ensemble --num_models 3 --backbone deeplabv3plus_mobilenet)

for split in $SPLITS; do
  out=$OUT/$split
  recipe=(@recipes/instance_uncertainty_camvid.args --data_root "$DATA_ROOT" --train_split "$split")
  train_members camvid "$out" "${recipe[@]}"
  make_masks "$out/masks" "${recipe[@]}"
  tests=(test)
  if [[ $split == train_day ]]; then tests=(dusk_test heldout_test); fi
  for tested in "${tests[@]}"; do
    evaluate "$out" "deep_ensemble_on_$tested" --model deep_ensemble "${weights[@]}" \
      --val_split "$tested"
  done
  for seed in $SEEDS; do
    seeded=("${recipe[@]}" --output_dir "$out" --random_seed "$seed")
    train "${seeded[@]}"
    train "${seeded[@]}" --loss_type uncertainty_cross_entropy --mask_dir "$out/masks"
    train "${seeded[@]}" "${ensemble[@]}" --loss_type cross_entropy
    train "${seeded[@]}" "${ensemble[@]}"
    for best in "$out"/checkpoints/best_*_camvid_os16_seed"$seed"{,_*}.pth; do
      name=$(basename "$best" .pth)
      if [[ $name == *seed*_ensemble* ]]; then continue; fi # a member: scored with its ensemble
      for tested in "${tests[@]}"; do
        evaluate "$out" "${name}_on_$tested" --ckpt "$best" --val_split "$tested"
      done
    done
  done
done
report "$OUT" camvid "$OUT"/*/results
