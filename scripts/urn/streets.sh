#!/usr/bin/env bash
# From image-level labels to a segmentation on generated streets, small enough for a CPU: a classifier
# on MobileNetV2, its activation maps, pseudo-masks, then DeepLabV3+ on MobileNetV2 on these, plainly
# and with pretended under-fitting, and on the latter's cyclic masks, plainly and weighted. The
# yardstick is training on the true pixel labels, which the others never see. Each is tested on test,
# pseudo-masks and cyclic masks against the labels of the training images. Ends in a report.
#
#   [SIZE=192x384] [STEPS=800] [SEEDS="1 2 3"] [DECODER=argmax] scripts/urn/streets.sh
#
# Nothing is read: the scenes are generated, at SIZE. STEPS: of every training. DECODER: of the
# response weights, argmax, affinity, or crf, as published and slow. PRETRAINED: a file of MobileNetV2's ImageNet
# weights, or by default torchvision's, which are downloaded. EXTRA="--cache DIR" draws each scene once.
# See stages.sh.
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
SIZE=${SIZE:-192x384}
STEPS=${STEPS:-800}
SEEDS=${SEEDS:-"1 2 3"}
DECODER=${DECODER:-argmax}
OUT=${OUT:-experiments/urn_streets}
require_choice DECODER "$DECODER" argmax affinity crf
require_weights mobilenet

streets=(--dataset streets_objects --train_transform resize --crop_size "$SIZE")
training=(
  "${streets[@]}" --pretrained_backbone "$(weights_of mobilenet)"
  --flip 0.5 --color_jitter 0.3 --batch_size 4
  --total_itrs "$STEPS" --val_interval $(((STEPS + 3) / 4)) --val_split none
)
# At the method's defaults it hardly learns in so few steps; drawn scenes want norms of their own.
classifier=(
  --method cam --model cam_mobilenet --image_tags masks "${training[@]}" --batch_size 8
  --output_stride 16 --cam_consistency none --cam_norm trained --optimizer adam --lr 0.0003
  --amp bf16 --channels_last
)
mapping=("${streets[@]}" --train_split train --image_tags masks --val_batch_size 4
  --eval_amp bf16 --channels_last)
# With the published power, 11, the small objects of a street fill most of it.
masking=("${streets[@]}" --train_split train --background_power 1)
segmenter=(
  --model deeplabv3plus_mobilenet "${training[@]}" --loss_normalize all
  --optimizer adam --lr 0.001 --backbone_lr_factor 0.3 --amp bf16 --channels_last
)
measuring=("${streets[@]}" --eval_size crop --val_split train)
passes=("${streets[@]}" --eval_flip --fuse probs --eval_amp bf16 --channels_last)
weighing=("${passes[@]}" --train_split train --response_preset voc --response_decoder "$DECODER")
testing=("${passes[@]}" --eval_size crop --val_split test --confidence msp response_scaling
  --metrics segmentation misclassification flagged)

for seed in $SEEDS; do
  segment "labels_seed$seed" --random_seed "$seed"
  classify "cam_seed$seed" --random_seed "$seed"
  map_classes "cam_seed$seed" "cams_seed$seed"
  make_pseudo_masks "cams_seed$seed" "pseudo_masks_seed$seed"
  judge_masks "pseudo_masks_seed$seed"
  from_tags=(--pseudo_dir "$OUT/pseudo_masks_seed$seed" --random_seed "$seed")
  segment "plain_seed$seed" "${from_tags[@]}"
  segment "underfit_seed$seed" "${from_tags[@]}" --underfit clamp --underfit_beta 0.5 \
    --underfit_k 0.5
  judge "underfit_seed$seed" _train --val_split train
  weigh "underfit_seed$seed" "cyclic_masks_seed$seed"
  judge_masks "cyclic_masks_seed$seed"
  weighted=(--weight_dir "$OUT/cyclic_masks_seed$seed" --random_seed "$seed")
  segment "cyclic_seed$seed" "${weighted[@]}" --weight_threshold 1
  segment "weighted_seed$seed" "${weighted[@]}" --weight_threshold 0.05
done
report "$OUT" urn_streets "$OUT/results" --baseline "pseudo labels, streets_objects"
