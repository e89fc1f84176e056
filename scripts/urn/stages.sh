#!/usr/bin/env bash
# Functions of the experiments on weak supervision; the scripts beside this file source it and set
# OUT, SEEDS and these arrays of flags:
#
#   classifier  of the training on image-level labels
#   mapping     of the making of activation maps, on the training images
#   masking     of the making of pseudo-masks
#   segmenter   of every training of a segmentation
#   weighing    of the making of response weights, on the training images
#   testing     of the tests of networks
#   measuring   of the tests of masks
#
#   GPUS        for a training; batch norms are joint over all of them, and each tells by its own
#               part of a batch whether it pretends to under-fit
#   CAM_GPUS    of them for a classifier, by default all up to 8: its batches are smaller
#   PRETRAINED  what trainings start from: imagenet, none, a file, or a folder of files BACKBONE.pth
#
# The network of a training's last step goes on, so that no pixel label chooses one. See
# ../experiment.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh"
GPUS=${GPUS:-1}
CAM_GPUS=${CAM_GPUS:-$((GPUS < 8 ? GPUS : 8))}
PRETRAINED=${PRETRAINED:-imagenet}

# choose_stages NAME...: set STAGES, by default to all of these or, with MASKS, to those after them
choose_stages() {
  local name usual="$*"
  if [[ -n ${MASKS:-} ]]; then usual="first weights second"; fi
  STAGES=${STAGES:-$usual}
  for name in $STAGES; do require_choice STAGES "$name" "$@"; done
}

# chosen STAGE: whether it is to run
chosen() {
  [[ " $STAGES " == *" $1 "* ]]
}

# weights_of BACKBONE: what its training starts from
weights_of() {
  if [[ -d $PRETRAINED ]]; then echo "$PRETRAINED/$1.pth"; else echo "$PRETRAINED"; fi
}

# require_weights BACKBONE...: stop with one line where there is nothing that its training starts from
require_weights() {
  local name
  for name in "$@"; do
    if [[ -d $PRETRAINED && ! -f $PRETRAINED/$name.pth ]]; then
      echo "PRETRAINED is $PRETRAINED, which has no $name.pth" >&2
      exit 2
    elif [[ $PRETRAINED == imagenet && " scalenet101 wideresnet38 " == *" $name "* ]]; then
      echo "PRETRAINED is imagenet, and no address is known for the weights of $name:" \
        "PRETRAINED=DIR with $name.pth and those of the other backbones" >&2
      exit 2
    fi
  done
}

# judge_masks FOLDER: the masks OUT/FOLDER as predictions, OUT/results/FOLDER.json
judge_masks() {
  evaluate "$OUT" "$1" --logits_dir "$OUT/$1" "${measuring[@]}"
}

# classify RUN FLAGS...: a classifier of image-level labels
classify() {
  local run=$1
  shift
  train_on "$CAM_GPUS" "$run" "${classifier[@]}" "$@"
}

# map_classes CLASSIFIER MAPS FLAGS...: activation maps, in OUT/MAPS
map_classes() {
  local run=$1 maps=$2
  shift 2
  "$PYTHON" main.py --make_cams --ckpt "$(network "$run")" "${mapping[@]}" \
    --cam_dir "$OUT/$maps" "$@" "${test_flags[@]}"
}

# make_pseudo_masks MAPS MASKS FLAGS...: pixel labels from OUT/MAPS, in OUT/MASKS
make_pseudo_masks() {
  local maps=$1 masks=$2
  shift 2
  "$PYTHON" main.py --make_pseudo_masks "${masking[@]}" --cam_dir "$OUT/$maps" \
    --pseudo_dir "$OUT/$masks" "$@"
}

# segment RUN FLAGS...: a segmentation, trained and tested
segment() {
  local run=$1
  shift
  train_on "$GPUS" "$run" "${segmenter[@]}" "$@"
  judge "$run"
}

# weigh RUN WEIGHTS FLAGS...: cyclic masks and weights of a network, in OUT/WEIGHTS
weigh() {
  local run=$1 folder=$2
  shift 2
  "$PYTHON" main.py --make_response_weights --ckpt "$(network "$run")" "${weighing[@]}" \
    --weight_dir "$OUT/$folder" "$@" "${test_flags[@]}"
}
