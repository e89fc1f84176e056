#!/usr/bin/env bash
# The studies of both papers on GTA5 to Cityscapes, each network tested as in gta5.sh. Stage one,
# its pseudo labels, and stage two, plain and rectified, are those of gta5.sh where OUT is the
# same. Ends in a report.
#
#   DATA_ROOT=DIR [SEEDS=1] [STUDIES="weights ..."] [GPUS_ONE=2] scripts/mrnet/ablations.sh
#
# STUDIES:
#   weights     stage one with weights of memory regularisation; of 0 and 0.1 each head alone
#   terms       stage one with the loss on labels alone (batch norms still see the target's images),
#               with the adversarial loss and with memory regularisation
#   thresholds  stage two, plain, on one set of pseudo labels, cut at training
#   agreement   stage two, plain, with memory regularisation on the target's images
#   droprates   stage two, rectified, with drop rates of both heads
#   directions  stage two, rectified, with other measures of the heads' disagreement
#   fusion      weights of the heads in the test of stage two, rectified
# See stages.sh.
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
all=(weights terms thresholds agreement droprates directions fusion)
STUDIES=${STUDIES:-"${all[*]}"}
SEEDS=${SEEDS:-1}
OUT=${OUT:-experiments/mrnet_gta5}
for study in $STUDIES; do require_choice STUDIES "$study" "${all[@]}"; done
to_cityscapes gta5

# first NAME FLAGS...: a network of stage one, gta5_one_NAME_seedN
first() {
  local name=$1
  shift
  stage_one "gta5_one_${name}_seed$seed" "$@" --random_seed "$seed"
}

# heads RUN: tests of each head alone
heads() {
  judge "$1" _main --fuse_heads main
  judge "$1" _aux --fuse_heads aux
}

# second NAME FLAGS...: a network of stage two, gta5_NAME_seedN
second() {
  local name=$1
  shift
  stage_two "gta5_${name}_seed$seed" "gta5_one_seed$seed" "$@" --random_seed "$seed"
}

# run_study NAME: with one seed
run_study() {
  local value
  case $1 in
    weights)
      for value in 0 0.01 0.05 0.2 0.5; do first "kl$value" --lambda_kl_target "$value"; done
      heads "gta5_one_kl0_seed$seed"
      heads "gta5_one_seed$seed"
      ;;
    terms)
      first labels "${no_target[@]}"
      first kl0 --lambda_kl_target 0
      first agreement "${no_alignment[@]}"
      ;;
    thresholds)
      second plain "${plain[@]}"
      for value in 0.7 0.8 0.9 0.95 0.99; do
        second "plain_threshold$value" "${plain[@]}" --pseudo_threshold "$value"
      done
      ;;
    agreement)
      second plain "${plain[@]}"
      second plain_agreement "${plain[@]}" --lambda_kl_target 0.1 --target_dataset cityscapes \
        --target_root "$DATA_ROOT/cityscapes" --target_input_size 512x1024
      ;;
    droprates)
      for value in 0 0.1 0.3 0.5 0.7; do second "rectified_drop$value" --droprate "$value"; done
      ;;
    directions)
      second rectified
      for value in main_aux aux_main mse; do
        second "rectified_$value" --var_direction "$value"
      done
      ;;
    fusion)
      second rectified
      heads "gta5_rectified_seed$seed"
      judge "gta5_rectified_seed$seed" _equal --fuse_weight_aux 1
      ;;
  esac
}

for seed in $SEEDS; do
  stage_one "gta5_one_seed$seed" --random_seed "$seed"
  label "gta5_one_seed$seed"
  for study in $STUDIES; do run_study "$study"; done
done
report "$OUT" mrnet_ablations "$OUT/results"
