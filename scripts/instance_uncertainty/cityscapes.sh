#!/usr/bin/env bash
# The paper's second table: Cityscapes validation, ResNet-101, cross entropy against instance
# uncertainty. Three members, their masks, then every seed with both losses.
#
#   DATA_ROOT=DIR [SEEDS="1 ... 7"] [EXTRA="--amp bf16"] scripts/instance_uncertainty/cityscapes.sh
#
# DATA_ROOT/cityscapes is the data set. The paper has 7 seeds and 30,000 steps. See ../experiment.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh"
require_data "the folder with cityscapes/"
MEMBERS=${MEMBERS:-"mobilenet:1000 resnet50:1000 resnet101:1000"}
SEEDS=${SEEDS:-"1 2 3 4 5 6 7"}
BACKBONES=${BACKBONES:-resnet101}
OUT=${OUT:-experiments/cityscapes}
recipe=(@recipes/instance_uncertainty.args --dataset cityscapes --data_root "$DATA_ROOT/cityscapes")

offline_experiment cityscapes "$BACKBONES" "${recipe[@]}" --total_itrs 30000
report "$OUT" cityscapes "$OUT/results"
