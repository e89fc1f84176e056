#!/usr/bin/env bash
# Adaptation to CamVid, small enough for a CPU: DeepLabV3+ on MobileNetV2 with a second head. Source
# only, MRNet's stage one, and stage two on its pseudo labels, plain and rectified, each tested, on
# mirrored images too, for its classes and for what its probabilities and the heads' disagreement are
# worth. Labels of the target are read by the tests alone. Ends in a report.
#
#   DATA_ROOT=CAMVID [STUDIES="game dusk"] [STEPS=800] [SEEDS="1 2 3"] scripts/mrnet/camvid.sh
#
# STUDIES: game, from generated streets in the look of a computer game (19 classes, compared by
# name) to CamVid's train, tested on test; dusk, from CamVid's train_day to dusk_train, tested on
# dusk_test. STEPS: of every training; what else is a number of steps follows from it. PRETRAINED: a
# file of MobileNetV2's ImageNet weights, none, or by default torchvision's, which are downloaded.
# See stages.sh.
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
require_data "CamVid's folder, with train/, trainannot/, test/ ..."
STUDIES=${STUDIES:-"game dusk"}
STEPS=${STEPS:-800}
SEEDS=${SEEDS:-"1 2 3"}
OUT=${OUT:-experiments/mrnet_camvid}
for study in $STUDIES; do require_choice STUDIES "$study" game dusk; done

training=(
  --model deeplabv3plus_mobilenet --aux_head --head_norm gn --use_se
  --pretrained_backbone "$PRETRAINED" --bn_momentum 0.1
  --train_transform resize_crop --scale_range 0.8 1.2 --crop_size 240x320 --flip 0.5
  --batch_size 4 --optimizer sgd --backbone_lr_factor 0.3
  --warm_up $((STEPS / 20)) --total_itrs "$STEPS" --val_interval $(((STEPS + 3) / 4))
  --val_split none
  --lambda_seg 0.5 --class_balance --often_balance --max_value 7
  --amp bf16 --channels_last
)
stage_one_losses=(
  --lr 0.01 --only_hard_label 80 --lambda_adv_target1 0.0002 --lambda_adv_target2 0.001
  --lambda_kl_target 0.1 --mr_start $((STEPS * 3 / 8))
)
camvid=(--dataset camvid --data_root "$DATA_ROOT")
passes=(
  "${camvid[@]}" --eval_size native --eval_flip --fuse probs
  --eval_amp bf16 --channels_last
)

# set_study NAME: the arrays of stages.sh
set_study() {
  local labelled unlabelled tested
  case $1 in
    game)
      labelled=(--dataset streets --condition game --input_size 320x640)
      itself=(--target_dataset streets --target_condition game --target_input_size 320x640)
      unlabelled=train tested=test
      ;;
    dusk)
      labelled=("${camvid[@]}" --train_split train_day --input_size 360x480)
      itself=(--target_split train_day)
      unlabelled=dusk_train tested=dusk_test
      ;;
  esac
  one=(--method mrnet "${training[@]}" "${stage_one_losses[@]}" "${labelled[@]}"
    --target_dataset camvid --target_root "$DATA_ROOT" --target_split "$unlabelled"
    --target_input_size 360x480)
  two=(--method rectified "${training[@]}" "${camvid[@]}" --train_split "$unlabelled"
    --input_size 360x480 --lr 0.005 --train_bn)
  labelling=("${passes[@]}" --train_split "$unlabelled")
  testing=("${passes[@]}" --val_split "$tested" --confidence msp disagreement
    --metrics segmentation calibration misclassification)
}

for study in $STUDIES; do
  set_study "$study"
  compare "$study"
done
report "$OUT" mrnet_camvid "$OUT/results"
