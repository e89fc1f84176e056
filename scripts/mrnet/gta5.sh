#!/usr/bin/env bash
# GTA5 to Cityscapes: source only, MRNet's stage one, and stage two on its pseudo labels, plain and
# rectified, each tested on Cityscapes' val with four passes. Ends in a report with the mIoU of the
# 19 classes.
#
#   DATA_ROOT=DIR [SEEDS="1 2 3"] [GPUS_ONE=2] [GPUS_TWO=3] scripts/mrnet/gta5.sh
#
# DATA_ROOT holds gta5/ and cityscapes/. PRETRAINED: a file of ResNet-101 in Caffe's layout, none,
# or by default the published one, which is downloaded. The settings are in
# recipes/mrnet_gta5.args and recipes/rectified_gta5.args. See stages.sh.
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
SEEDS=${SEEDS:-"1 2 3"}
OUT=${OUT:-experiments/mrnet_gta5}
to_cityscapes gta5

compare gta5
report "$OUT" mrnet_gta5 "$OUT/results"
