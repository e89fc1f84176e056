#!/usr/bin/env bash
# Functions of the experiments; the scripts in the folders beside this file source it.
#
#   DATA_ROOT  holds the data sets, as each script says
#   SEEDS      of the runs that are compared, such as "1 2 3 4 5"
#   MEMBERS    of the deep ensemble that makes the masks, as BACKBONE:SEED, such as "resnet50:1 mobilenet:1"
#   EXTRA      further flags for every training, such as "--amp bf16 --cache /data/cache"
#   TEST_FLAGS of tests and of what a network makes (labels, maps), such as "--val_batch_size 1"
#   OUT        where checkpoints/, runs/, results/ and masks go (default: experiments/NAME)
#   PYTHON     the interpreter (default: .venv/bin/python where there is one)
#
# What is finished is skipped; what was interrupted goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -z ${PYTHON:-} ]]; then
  if [[ -x .venv/bin/python ]]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
read -ra extra <<<"${EXTRA:-}"
read -ra test_flags <<<"${TEST_FLAGS:-}"

# require_data WHAT: stop with one line where DATA_ROOT is not set
require_data() {
  if [[ -z ${DATA_ROOT:-} ]]; then
    echo "DATA_ROOT is not set: DATA_ROOT=DIR $0, where DIR is $1" >&2
    exit 2
  fi
}

# require_choice VARIABLE NAME CHOICE...: stop with one line where NAME is none of the choices
require_choice() {
  local variable=$1 name=$2
  shift 2
  if [[ " $* " != *" $name "* ]]; then
    echo "$variable has $name; it is of $*" >&2
    exit 2
  fi
}

# train FLAGS...: one training
train() {
  "$PYTHON" main.py --continue_training "$@" "${extra[@]}"
}

# train_on GPUS RUN FLAGS...: one training on that many GPUS, under OUT
train_on() {
  local gpus=$1 run=$2 program=(main.py)
  shift 2
  if ((gpus > 1)); then
    program=(-m torch.distributed.run --standalone --nproc_per_node "$gpus" main.py --sync_bn)
  fi
  "$PYTHON" "${program[@]}" --continue_training "$@" --run_name "$run" --output_dir "$OUT" \
    "${extra[@]}"
}

# train_backbone BACKBONE FLAGS...: DeepLabV3+ with the rate that the paper gives its classifier
train_backbone() {
  local backbone=$1 lr=0.0001
  shift
  if [[ $backbone == mobilenet ]]; then lr=0.001; fi
  train "$@" --model "deeplabv3plus_$backbone" --lr $lr
}

# train_members DATASET OUT FLAGS...: every one of MEMBERS; weights becomes --weight FILE ...
train_members() {
  local dataset=$1 out=$2 member backbone seed
  shift 2
  weights=()
  for member in $MEMBERS; do
    backbone=${member%:*} seed=${member#*:}
    train_backbone "$backbone" "$@" --output_dir "$out" --random_seed "$seed"
    weights+=(--weight "$out/checkpoints/best_deeplabv3plus_${backbone}_${dataset}_os16_seed$seed.pth")
  done
}

# make_masks DIR FLAGS...: of the deep ensemble of the weights, over the training images
make_masks() {
  local masks=$1
  shift
  "$PYTHON" main.py "$@" "${extra[@]}" --model deep_ensemble "${weights[@]}" \
    --make_uncertainty_masks --mask_dir "$masks"
}

# evaluate OUT NAME FLAGS...: one result file, OUT/results/NAME.json
evaluate() {
  local out=$1 name=$2
  shift 2
  if [[ -f $out/results/$name.json ]]; then
    echo "$out/results/$name.json is there"
  else
    "$PYTHON" main.py --test_only --output_dir "$out" --run_name "$name" "$@"
  fi
}

# network RUN: the checkpoint of its last step, under OUT
network() {
  echo "$OUT/checkpoints/latest_$1.pth"
}

# judge RUN [SUFFIX FLAGS...]: OUT/results/RUN[SUFFIX].json, with the flags of the array testing
judge() {
  local run=$1 name=$1${2:-}
  shift $(($# > 1 ? 2 : 1))
  evaluate "$OUT" "$name" --ckpt "$(network "$run")" "${testing[@]}" "$@" "${test_flags[@]}"
}

# offline_experiment DATASET BACKBONES FLAGS...: the paper's first experiment. The members and their
# masks, then each backbone with every seed, by cross entropy and by instance uncertainty, tested.
offline_experiment() {
  local dataset=$1 backbones=$2 seed backbone run
  shift 2
  train_members "$dataset" "$OUT" "$@"
  make_masks "$OUT/masks" "$@"
  for seed in $SEEDS; do
    for backbone in $backbones; do
      run=deeplabv3plus_${backbone}_${dataset}_os16_seed$seed
      train_backbone "$backbone" "$@" --output_dir "$OUT" --random_seed "$seed"
      train_backbone "$backbone" "$@" --output_dir "$OUT" --random_seed "$seed" \
        --loss_type uncertainty_cross_entropy --mask_dir "$OUT/masks"
      for run in "$run" "${run}_uncertainty_cross_entropy"; do
        evaluate "$OUT" "best_$run" --ckpt "$OUT/checkpoints/best_$run.pth"
      done
    done
  done
}

# report OUT NAME RESULTS...: the statistics over result files, in OUT/reports/NAME
report() {
  local out=$1 name=$2
  shift 2
  "$PYTHON" main.py --report "$@" --output_dir "$out" --run_name "$name"
}

# fit OUT NAME KIND FLAGS...: one calibrator, OUT/checkpoints/calibrator_NAME.pth
fit() {
  local out=$1 name=$2 kind=$3
  shift 3
  "$PYTHON" main.py --fit_calibrator "$kind" --output_dir "$out" --run_name "$name" \
    --continue_training "$@"
}

# calibrator_flags NAME: the flags of a calibrator by the name it has in the tables; calibrator=(KIND FLAGS)
calibrator_flags() {
  case $1 in
    temperature) calibrator=(temperature) ;;
    temperature_nll) calibrator=(temperature --fit_objective nll) ;;
    vector) calibrator=(vector) ;;
    cluster) calibrator=(cluster) ;;
    cluster_soft) calibrator=(cluster --cluster_assignment soft) ;;
    local) calibrator=(local) ;;
    local_corrected) calibrator=(local --lts_init_t 1 --lts_init random --lts_floor clamp) ;;
    *)
      echo "no calibrator is called $1" >&2
      return 2
      ;;
  esac
}
