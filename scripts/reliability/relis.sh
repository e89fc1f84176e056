#!/usr/bin/env bash
# The reliability study (CVPR 2023): networks trained on Cityscapes, measured on Cityscapes, IDD and
# ACDC in one pass, as they are and with calibrators fitted on four calibration sets: that of the
# test's own data set, Cityscapes, all three, and Cityscapes augmented 15 times. Ends in a report
# with the paper's first figure.
#
#   DATA_ROOT=DIR CKPTS="A.pth B.pth" [OUT=...] scripts/reliability/relis.sh
#
# DATA_ROOT holds cityscapes/, IDD/ and ACDC/. CALIBRATORS, SEEDS (of the fits): see below.
source "$(dirname "${BASH_SOURCE[0]}")/../experiment.sh"
require_data "the folder with cityscapes/, IDD/ and ACDC/"
if [[ -z ${CKPTS:-} ]]; then
  echo "CKPTS is not set: CKPTS=\"A.pth B.pth\" $0, checkpoints trained on Cityscapes" >&2
  exit 2
fi
CALIBRATORS=${CALIBRATORS:-"temperature cluster local"}
SEEDS=${SEEDS:-42}
OUT=${OUT:-experiments/relis}
metrics=(--metrics segmentation calibration misclassification image_ood --confidence msp entropy)
for name in $CALIBRATORS; do calibrator_flags "$name"; done # a wrong name stops here

cityscapes=cityscapes,root=$DATA_ROOT/cityscapes
idd=idd,root=$DATA_ROOT/IDD
acdc=acdc,root=$DATA_ROOT/ACDC
# parts SPLIT: that split of the three data sets, in parts
parts() {
  parts=("$cityscapes,split=$1" "$idd,split=$1" "$acdc,split=$1")
}
parts relis_cal
declare -A fitted_on=(
  [cityscapes]="${parts[0]}" [idd]="${parts[1]}" [acdc]="${parts[2]}"
  [all]="${parts[*]}" [augmented]="${parts[0]},augmented=15"
)
parts relis_test

for checkpoint in $CKPTS; do
  model=$(basename "$checkpoint" .pth)
  evaluate "$OUT" "$model" --ckpt "$checkpoint" --eval_on "${parts[@]}" "${metrics[@]}"
  evaluate "$OUT" "${model}_unknown_objects" --ckpt "$checkpoint" --eval_on "${parts[1]}" \
    --metrics ood --confidence msp entropy
  for name in $CALIBRATORS; do
    calibrator_flags "$name"
    for data in cityscapes idd acdc all augmented; do
      for seed in $SEEDS; do
        run=${model}_${name}_${data}_seed$seed
        read -ra images <<<"${fitted_on[$data]}"
        fit "$OUT" "$run" "${calibrator[@]}" --ckpt "$checkpoint" --eval_on "${images[@]}" \
          --random_seed "$seed"
        evaluate "$OUT" "$run" --ckpt "$checkpoint" --eval_on "${parts[@]}" "${metrics[@]}" \
          --calibrator "$OUT/checkpoints/calibrator_$run.pth"
      done
    done
  done
done
report "$OUT" relis "$OUT/results"
