#!/usr/bin/env bash
# The paper's third table: domain shift, ResNet-101. Networks trained on Cityscapes are tested on
# ACDC and the reverse, cross entropy against instance uncertainty. The trainings are those of
# acdc.sh and cityscapes.sh, run first where they are missing.
#
#   DATA_ROOT=DIR [SEEDS="1 ... 7"] [EXTRA="--amp bf16"] scripts/instance_uncertainty/domain_shift.sh
#
# DATA_ROOT holds ACDC/ and cityscapes/. OUT holds acdc/ and cityscapes/ of those scripts.
source "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh"
require_data "the folder with ACDC/ and cityscapes/"
export DATA_ROOT PYTHON BACKBONES=${BACKBONES:-resnet101} SEEDS=${SEEDS:-"1 2 3 4 5 6 7"}
OUT=${OUT:-experiments}
size=(--eval_size crop --crop_size 768)
OUT=$OUT/acdc scripts/instance_uncertainty/acdc.sh
OUT=$OUT/cityscapes scripts/instance_uncertainty/cityscapes.sh

for seed in $SEEDS; do
  for backbone in $BACKBONES; do
    for loss in "" _uncertainty_cross_entropy; do
      name=best_deeplabv3plus_${backbone}_cityscapes_os16_seed$seed$loss
      evaluate "$OUT/domain_shift" "${name}_on_acdc" --ckpt "$OUT/cityscapes/checkpoints/$name.pth" \
        --dataset acdc --data_root "$DATA_ROOT/ACDC" "${size[@]}"
      name=best_deeplabv3plus_${backbone}_acdc_os16_seed$seed$loss
      evaluate "$OUT/domain_shift" "${name}_on_cityscapes" --ckpt "$OUT/acdc/checkpoints/$name.pth" \
        --dataset cityscapes --data_root "$DATA_ROOT/cityscapes" "${size[@]}"
    done
  done
done
report "$OUT" domain_shift "$OUT/domain_shift/results"
