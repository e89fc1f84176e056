#!/usr/bin/env bash
# The paper's first table: ACDC validation, MobileNetV2, ResNet-50 and ResNet-101, cross entropy
# against instance uncertainty. Three members, their masks, then every seed with both losses.
#
#   DATA_ROOT=DIR [SEEDS="1 2 ... 30"] [EXTRA="--amp bf16"] scripts/instance_uncertainty/acdc.sh
#
# DATA_ROOT/ACDC is the data set. The paper has 30 seeds for each backbone. See ../experiment.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh"
require_data "the folder with ACDC/"
MEMBERS=${MEMBERS:-"mobilenet:1000 resnet50:1000 resnet101:1000"}
SEEDS=${SEEDS:-$(seq -s ' ' 30)}
BACKBONES=${BACKBONES:-"mobilenet resnet50 resnet101"}
OUT=${OUT:-experiments/acdc}
recipe=(@recipes/instance_uncertainty.args --dataset acdc --data_root "$DATA_ROOT/ACDC")

offline_experiment acdc "$BACKBONES" "${recipe[@]}"
report "$OUT" acdc "$OUT/results"
