#!/usr/bin/env bash
# The table of AbeT's paper: DeepLabV3+ on WideResNet38, trained on Mapillary Vistas, fine-tuned on
# Cityscapes with every seed, then judged by every score on LostAndFound, RoadAnomaly and whatever
# there is of SegmentMeIfYouCan; so is the ensemble of the seeds. Once with AbeT's head (cosine,
# learned temperature), once with a linear one, whose msp, entropy and max_logit are the paper's
# baselines. Ends in a report.
#
#   DATA_ROOT=DIR PRETRAINED=FILE [GPUS=8] [SEEDS="1 2 3"] scripts/abet/cityscapes.sh
#
# DATA_ROOT holds mapillary/, cityscapes/, lost_and_found/, road_anomaly/ and, if there are any,
# smiyc_anomaly/ and smiyc_obstacle/. PRETRAINED: the ImageNet weights of WideResNet38
# (wider_resnet38.pth.tar), or none. GPUS: that many for a training, 1 by default; where memory is
# short, EXTRA="--accumulate N". HEADS: "cosine linear". TEST_FLAGS: of the tests. See
# ../experiment.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh"
require_data "the folder with mapillary/, cityscapes/, lost_and_found/ and road_anomaly/"
for data in mapillary cityscapes lost_and_found road_anomaly; do
  if [[ ! -d $DATA_ROOT/$data ]]; then
    echo "DATA_ROOT is $DATA_ROOT, which has no $data/" >&2
    exit 2
  fi
done
if [[ -z ${PRETRAINED:-} ]]; then
  echo "PRETRAINED is not set: PRETRAINED=FILE $0, WideResNet38's ImageNet weights, or none" >&2
  exit 2
fi
HEADS=${HEADS:-"cosine linear"}
SEEDS=${SEEDS:-"1 2 3"}
GPUS=${GPUS:-1}
OUT=${OUT:-experiments/abet_cityscapes}
scores=abet,energy,msp,entropy,max_logit,sml,react,dice,odin+msp
of_ensemble=abet,abet@mean_logit,abet@deviation,energy,msp,entropy,max_logit,mutual_information

# head_flags HEAD: flags=(...), and alone=SCORES of one network with that head
head_flags() {
  case $1 in
    cosine) flags=(--head cosine --temperature learned) alone=$scores,godin ;;
    linear) flags=(--head linear --temperature none) alone=$scores ;;
    *)
      echo "no head is called $1: HEADS is of cosine and linear" >&2
      return 2
      ;;
  esac
}

# judge NAME SCORES NETWORK...: OUT/results/NAME.json with the mIoU, and NAME_on_DATA.json
judge() {
  local name=$1 judged=$2 data
  shift 2
  evaluate "$OUT" "$name" "$@" --data_root "$DATA_ROOT/cityscapes" --val_batch_size 1 \
    "${test_flags[@]}"
  for data in lost_and_found road_anomaly smiyc_anomaly smiyc_obstacle; do
    if [[ -d $DATA_ROOT/$data ]]; then
      evaluate "$OUT" "${name}_on_$data" "$@" --dataset "$data" --data_root "$DATA_ROOT/$data" \
        --metrics ood components --ood_score "$judged" "${test_flags[@]}"
    fi
  done
}

for head in $HEADS; do head_flags "$head"; done # a wrong name stops here

for head in $HEADS; do
  head_flags "$head"
  train_on "$GPUS" "mapillary_$head" @recipes/abet_mapillary.args --data_root "$DATA_ROOT/mapillary" \
    --pretrained_backbone "$PRETRAINED" "${flags[@]}"
  members=()
  for seed in $SEEDS; do
    run=cityscapes_${head}_seed$seed
    best=$OUT/checkpoints/best_$run.pth
    train_on "$GPUS" "$run" @recipes/abet_cityscapes.args --data_root "$DATA_ROOT/cityscapes" "${flags[@]}" \
      --init "$OUT/checkpoints/best_mapillary_$head.pth" --reset_head --random_seed "$seed"
    "$PYTHON" main.py --fit_score sml --ckpt "$best" --data_root "$DATA_ROOT/cityscapes" \
      --val_batch_size 1 --output_dir "$OUT" --run_name "$run" "${test_flags[@]}"
    judge "$run" "$alone" --ckpt "$best" \
      --score_statistics "$OUT/checkpoints/score_statistics_$run.pth"
    members+=(--weight "$best")
  done
  if [[ $SEEDS == *" "* ]]; then
    judge "cityscapes_${head}_ensemble" "$of_ensemble" --model deep_ensemble "${members[@]}"
  fi
done
report "$OUT" abet_cityscapes "$OUT/results"
