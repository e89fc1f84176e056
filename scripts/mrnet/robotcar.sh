#!/usr/bin/env bash
# Cityscapes to Oxford RobotCar: source only, MRNet's stage one, and stage two on its pseudo labels,
# plain and rectified, each tested on RobotCar's val with four passes. Ends in a report with the
# mIoU of the nine classes.
#
#   DATA_ROOT=DIR [SEEDS="1 2 3"] [GPUS_ONE=2] [GPUS_TWO=3] scripts/mrnet/robotcar.sh
#
# DATA_ROOT holds cityscapes/ and robotcar/. PRETRAINED: as in gta5.sh. No commands were published:
# recipes/mrnet_robotcar.args and recipes/rectified_robotcar.args say what is taken over. See
# stages.sh.
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
require_data "the folder with cityscapes/ and robotcar/"
require_folders cityscapes robotcar
SEEDS=${SEEDS:-"1 2 3"}
OUT=${OUT:-experiments/mrnet_robotcar}
target=(--dataset robotcar --data_root "$DATA_ROOT/robotcar")
one=(@recipes/mrnet_robotcar.args --data_root "$DATA_ROOT/cityscapes"
  --target_root "$DATA_ROOT/robotcar" --pretrained_backbone "$PRETRAINED")
itself=(--target_dataset cityscapes_robotcar --target_root "$DATA_ROOT/cityscapes"
  --target_input_size 720x1280)
two=(@recipes/rectified_robotcar.args --data_root "$DATA_ROOT/robotcar")
labelling=(@recipes/mrnet_robotcar_pseudo.args "${target[@]}")
testing=(@recipes/mrnet_robotcar_test.args "${target[@]}" --val_split val)

compare robotcar
report "$OUT" mrnet_robotcar "$OUT/results"
