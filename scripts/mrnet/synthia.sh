#!/usr/bin/env bash
# SYNTHIA to Cityscapes: source only, MRNet's stage one, and stage two on those of its pseudo labels
# with a probability of at least 0.9, plain and rectified, each tested on Cityscapes' val with four
# passes. Ends in a report with the mIoU of the 16 and of the 13 classes.
#
#   DATA_ROOT=DIR [SEEDS="1 2 3"] [GPUS_ONE=2] [GPUS_TWO=3] scripts/mrnet/synthia.sh
#
# DATA_ROOT holds synthia/ and cityscapes/. PRETRAINED: as in gta5.sh. No commands were published:
# recipes/mrnet_synthia.args and recipes/rectified_synthia.args say what is taken over. See
# stages.sh.
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
SEEDS=${SEEDS:-"1 2 3"}
OUT=${OUT:-experiments/mrnet_synthia}
to_cityscapes synthia
labelling+=(--pseudo_threshold 0.9)
testing+=(--miou_subsets synthia16 synthia13) # stage two's networks were not trained on SYNTHIA

compare synthia
report "$OUT" mrnet_synthia "$OUT/results"
