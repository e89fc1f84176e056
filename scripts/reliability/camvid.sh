#!/usr/bin/env bash
# Reliability on CamVid: a network and an ensemble, as they are and with every calibrator, fitted on
# val and scored on test, its dusk sequence (0001TP) and the sequence never seen (Seq05VD) apart.
# Members that are missing are trained first. Ends in a report.
#
#   DATA_ROOT=CAMVID [MEMBERS="mobilenet:11 ..."] [OUT=...] scripts/reliability/camvid.sh
#
# CALIBRATORS: which, by the names of calibrator_flags in ../experiment.sh. TRAIN_SPLIT, FIT_SPLIT
# and TEST_SPLIT: train, val and test; or train_day, dusk_train and dusk_test, a calibrator for dusk.
source "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh"
require_data "CamVid's folder, with train/, trainannot/, val/ ..."
MEMBERS=${MEMBERS:-"mobilenet:11 mobilenet:12 mobilenet:13"}
CALIBRATORS=${CALIBRATORS:-"temperature temperature_nll vector cluster cluster_soft local local_corrected"}
OUT=${OUT:-experiments/reliability_camvid}
TRAIN_SPLIT=${TRAIN_SPLIT:-train}
FIT_SPLIT=${FIT_SPLIT:-val}
TEST_SPLIT=${TEST_SPLIT:-test}
metrics=(--metrics segmentation calibration misclassification pavpu --confidence msp entropy)
for name in $CALIBRATORS; do calibrator_flags "$name"; done # a wrong name stops here

train_members camvid "$OUT" @recipes/instance_uncertainty_camvid.args --data_root "$DATA_ROOT" \
  --train_split "$TRAIN_SPLIT"
for model in single ensemble; do
  if [[ $model == single ]]; then
    network=(--ckpt "${weights[1]}")
  else
    network=(--model deep_ensemble "${weights[@]}")
  fi
  network+=(--data_root "$DATA_ROOT" "${test_flags[@]}")
  tested=(--val_split "$TEST_SPLIT" --per_scene "${metrics[@]}")
  evaluate "$OUT" "$model" "${network[@]}" "${tested[@]}"
  for name in $CALIBRATORS; do
    calibrator_flags "$name"
    fit "$OUT" "${model}_$name" "${calibrator[@]}" "${network[@]}" --val_split "$FIT_SPLIT"
    evaluate "$OUT" "${model}_$name" "${network[@]}" "${tested[@]}" \
      --calibrator "$OUT/checkpoints/calibrator_${model}_$name.pth"
  done
done
report "$OUT" reliability_camvid "$OUT/results"
