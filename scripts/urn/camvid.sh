#!/usr/bin/env bash
# Uncertainty by response scaling on CamVid with deliberately damaged labels, small enough for a CPU:
# DeepLabV3+ on MobileNetV2. Every object of the training labels is too wide or too narrow; plain
# training on them, pretended under-fitting, and with the weights of the latter's network second
# trainings on its cyclic masks and on the damaged labels themselves. Each is tested on test, beside
# plain training on clean labels. Masks and uncertainty are also held against the clean labels of the
# training images. Ends in a report for each kind of damage.
#
#   DATA_ROOT=CAMVID [NOISES="balanced biased"] [STEPS=800] [SEEDS="1 2 3"] scripts/urn/camvid.sh
#
# NOISES: balanced, half of the objects too wide; biased, three quarters. STEPS: of every training.
# PRETRAINED: a file of MobileNetV2's ImageNet weights, none, or by default torchvision's, which are
# downloaded. See stages.sh.
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
require_data "CamVid's folder, with train/, trainannot/, test/ ..."
NOISES=${NOISES:-"balanced biased"}
STEPS=${STEPS:-800}
SEEDS=${SEEDS:-"1 2 3"}
OUT=${OUT:-experiments/urn_camvid}
for noise in $NOISES; do require_choice NOISES "$noise" balanced biased; done
require_weights mobilenet

camvid=(--dataset camvid --data_root "$DATA_ROOT")
segmenter=(
  @recipes/camvid.args "${camvid[@]}" --pretrained_backbone "$(weights_of mobilenet)"
  --loss_normalize all --batch_size 4 --total_itrs "$STEPS" --val_interval $(((STEPS + 3) / 4))
  --val_split none
)
passes=(
  "${camvid[@]}" --eval_size native --eval_flip --fuse probs
  --eval_amp bf16 --channels_last
)
weighing=("${passes[@]}" --train_split train --response_preset voc --response_decoder argmax)
testing=("${passes[@]}" --val_split test --confidence msp response_scaling
  --metrics segmentation misclassification flagged)
measuring=("${camvid[@]}" --eval_size native --val_split train)

# set_noise NAME: damaged, the flags of the damaged labels
set_noise() {
  case $1 in
    balanced) damaged=(--label_damage 0.5) ;;
    biased) damaged=(--label_damage 0.75) ;;
  esac
}

# compare NOISE SEED: the rows of one kind of damage
compare() {
  local noise=$1 seed=$2 first=$1_underfit_seed$2 masks=$1_masks_seed$2 weighted
  segment "${noise}_plain_seed$seed" "${damaged[@]}" --random_seed "$seed"
  segment "$first" "${damaged[@]}" --underfit clamp --underfit_beta 0.5 --underfit_k 0.5 \
    --random_seed "$seed"
  judge "$first" _train --val_split train
  weigh "$first" "$masks"
  judge_masks "$masks"
  weighted=(--weight_dir "$OUT/$masks" --random_seed "$seed")
  segment "${noise}_cyclic_seed$seed" "${weighted[@]}" --weight_threshold 1
  segment "${noise}_weighted_seed$seed" "${weighted[@]}" --weight_threshold 0.05
  segment "${noise}_linear_seed$seed" "${weighted[@]}" --weighting linear
  segment "${noise}_original_seed$seed" "${weighted[@]}" --weight_threshold 0.05 \
    --label_source original "${damaged[@]}"
}

for seed in $SEEDS; do segment "clean_seed$seed" --random_seed "$seed"; done
for noise in $NOISES; do
  set_noise "$noise"
  for seed in $SEEDS; do compare "$noise" "$seed"; done
  # Of second trainings nothing but this says which damage their masks come from.
  report "$OUT" "urn_camvid_$noise" "$OUT/results/clean_*.json" "$OUT/results/${noise}_*.json" \
    --baseline "damaged labels, camvid"
done
