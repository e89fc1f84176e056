#!/usr/bin/env bash
# Both experiments on the generated streets, small enough for two CPU cores in a quarter of an hour:
# offline (masks of a deep ensemble) and online (an ensemble that weights its own training), each
# against cross entropy, tested by day and at night. Ends in a report. So short a training shows how
# the experiment runs, not what the method does.
#
#   [SEEDS="1 2"] [EXTRA="..."] scripts/instance_uncertainty/streets.sh
#
# See ../experiment.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh"
MEMBERS=${MEMBERS:-"mobilenet:11 mobilenet:12 mobilenet:13"}
SEEDS=${SEEDS:-"1 2"}
OUT=${OUT:-experiments/streets}
recipe=(@recipes/instance_uncertainty_streets.args --cache "$OUT/cache")
ensemble=(--model ensemble --num_models 3 --backbone deeplabv3plus_mobilenet)

offline_experiment streets mobilenet "${recipe[@]}"
for seed in $SEEDS; do
  seeded=("${recipe[@]}" --output_dir "$OUT" --random_seed "$seed")
  train "${seeded[@]}" "${ensemble[@]}" --loss_type cross_entropy
  train "${seeded[@]}" "${ensemble[@]}"
  for best in "$OUT"/checkpoints/best_*_streets_os16_seed"$seed"{,_*}.pth; do
    name=$(basename "$best" .pth)
    if [[ $name == *seed*_ensemble* ]]; then continue; fi # a member: scored with its ensemble
    evaluate "$OUT" "$name" --ckpt "$best" --cache "$OUT/cache"
    evaluate "$OUT" "${name}_night" --ckpt "$best" --cache "$OUT/cache" --condition night
  done
done
report "$OUT" streets "$OUT/results"
