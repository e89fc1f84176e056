#!/usr/bin/env bash
# Functions of the experiments on adaptation; the scripts beside this file source it and set OUT,
# SEEDS and these arrays of flags:
#
#   one        of stage one: the source's labels and the target's images
#   itself     in stage one, the source's images in place of the target's
#   two        of stage two, but for the network it starts from and its pseudo labels
#   labelling  of the making of pseudo labels, on the target's training images
#   testing    of the tests
#
# A network of the source only is trained as in stage one, with the weights of all losses on the
# target's images 0. They would still be in the batch norms, so the source's own take their place.
#
#   GPUS_ONE    for a training of stage one: 1, published 2
#   GPUS_TWO    for a training of stage two: 1, published 3; batch norms are joint over all of them
#
# See ../experiment.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh"
GPUS_ONE=${GPUS_ONE:-1}
GPUS_TWO=${GPUS_TWO:-1}
PRETRAINED=${PRETRAINED:-imagenet}
no_alignment=(--lambda_adv_target1 0 --lambda_adv_target2 0)
no_target=("${no_alignment[@]}" --lambda_kl_target 0)
plain=(--pseudo_loss plain --only_hard_label 80)

# require_folders NAME...: stop with one line where DATA_ROOT lacks one
require_folders() {
  local name
  for name in "$@"; do
    if [[ ! -d $DATA_ROOT/$name ]]; then
      echo "DATA_ROOT is $DATA_ROOT, which has no $name/" >&2
      exit 2
    fi
  done
}

# stage_one RUN FLAGS...: trained and tested
stage_one() {
  local run=$1
  shift
  train_on "$GPUS_ONE" "$run" "${one[@]}" "$@"
  judge "$run"
}

# label RUN FLAGS...: pseudo labels of a network, in OUT/pseudo_labels/RUN
label() {
  local run=$1
  shift
  "$PYTHON" main.py --make_pseudo_labels --ckpt "$(network "$run")" "${labelling[@]}" \
    --pseudo_dir "$OUT/pseudo_labels/$run" "$@" "${test_flags[@]}"
}

# stage_two RUN FIRST FLAGS...: trained from the network FIRST on its pseudo labels, and tested
stage_two() {
  local run=$1 first=$2
  shift 2
  train_on "$GPUS_TWO" "$run" "${two[@]}" --init "$(network "$first")" \
    --pseudo_dir "$OUT/pseudo_labels/$first" "$@"
  judge "$run"
}

# compare NAME: the rows of the published tables for every seed, NAME_source_seedN to
# NAME_rectified_seedN
compare() {
  local seed
  for seed in $SEEDS; do
    stage_one "$1_source_seed$seed" "${itself[@]}" "${no_target[@]}" --random_seed "$seed"
    stage_one "$1_one_seed$seed" --random_seed "$seed"
    label "$1_one_seed$seed"
    stage_two "$1_plain_seed$seed" "$1_one_seed$seed" "${plain[@]}" --random_seed "$seed"
    stage_two "$1_rectified_seed$seed" "$1_one_seed$seed" --random_seed "$seed"
  done
}

# to_cityscapes SOURCE: the arrays for gta5 or synthia, in DATA_ROOT/SOURCE and DATA_ROOT/cityscapes
to_cityscapes() {
  require_data "the folder with $1/ and cityscapes/"
  require_folders "$1" cityscapes
  local target=$DATA_ROOT/cityscapes
  one=("@recipes/mrnet_$1.args" --data_root "$DATA_ROOT/$1" --target_root "$target"
    --pretrained_backbone "$PRETRAINED")
  itself=(--target_dataset "$1" --target_root "$DATA_ROOT/$1")
  two=("@recipes/rectified_$1.args" --data_root "$target")
  labelling=(@recipes/mrnet_cityscapes_passes.args --dataset cityscapes --data_root "$target")
  testing=("${labelling[@]}" --val_split val)
}
