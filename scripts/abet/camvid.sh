#!/usr/bin/env bash
# AbeT on CamVid, small enough for a CPU: DeepLabV3+ on MobileNetV2 with a linear head, and with a
# cosine head and learned temperature. The mIoU of every seed on test, its scores of unknown
# objects on RoadAnomaly, and those of the ensemble of the seeds. Ends in a report.
#
#   DATA_ROOT=CAMVID ROAD_ANOMALY=DIR [SEEDS="1 2 3"] [EXTRA="..."] scripts/abet/camvid.sh
#
# HEADS: "linear cosine". TEST_FLAGS: of the tests, such as --save_val_results. The networks tested
# are those after the last step: CamVid's val shares a sequence with train. See ../experiment.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh"
require_data "CamVid's folder, with train/, trainannot/, val/ ..."
if [[ -z ${ROAD_ANOMALY:-} ]]; then
  echo "ROAD_ANOMALY is not set: ROAD_ANOMALY=DIR $0, where DIR has frames/ or original/" >&2
  exit 2
fi
HEADS=${HEADS:-"linear cosine"}
SEEDS=${SEEDS:-"1 2 3"}
OUT=${OUT:-experiments/abet_camvid}
declare -A flags_of=([linear]="--head linear" [cosine]="--head cosine --temperature learned")
declare -A scores_of=(
  [linear]="abet,energy,msp,entropy,max_logit,sml,odin+msp,react,dice"
  [cosine]="abet,energy,msp,entropy,max_logit,sml,odin+msp,react,dice,godin"
  [ensemble]="abet,abet@mean_logit,abet@deviation,mutual_information"
)
for head in $HEADS; do # a wrong name stops here
  if [[ -z ${flags_of[$head]:-} ]]; then
    echo "no head is called $head: HEADS is of linear and cosine" >&2
    exit 2
  fi
done

# score NAME SCORES NETWORK...: OUT/results/NAME.json on CamVid, NAME_on_road_anomaly.json there
score() {
  local name=$1 scores=$2
  shift 2
  evaluate "$OUT" "$name" "$@" --data_root "$DATA_ROOT" --val_split test "${test_flags[@]}"
  evaluate "$OUT" "${name}_on_road_anomaly" "$@" --dataset road_anomaly \
    --data_root "$ROAD_ANOMALY" --metrics ood components --ood_score "$scores" "${test_flags[@]}"
}

for head in $HEADS; do
  read -ra head_flags <<<"${flags_of[$head]}"
  members=()
  for seed in $SEEDS; do
    run=camvid_${head}_seed$seed
    latest=$OUT/checkpoints/latest_$run.pth
    train @recipes/camvid.args --data_root "$DATA_ROOT" "${head_flags[@]}" --total_itrs 800 \
      --val_interval 200 --random_seed "$seed" --run_name "$run" --output_dir "$OUT"
    "$PYTHON" main.py --fit_score sml --ckpt "$latest" --data_root "$DATA_ROOT" \
      --output_dir "$OUT" --run_name "$run" "${test_flags[@]}"
    score "$run" "${scores_of[$head]}" --ckpt "$latest" \
      --score_statistics "$OUT/checkpoints/score_statistics_$run.pth"
    members+=(--weight "$latest")
  done
  if [[ $SEEDS == *" "* ]]; then
    score "camvid_${head}_ensemble" "${scores_of[ensemble]}" --model deep_ensemble "${members[@]}"
  fi
done
report "$OUT" abet_camvid "$OUT/results"
