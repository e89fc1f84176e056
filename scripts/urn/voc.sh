#!/usr/bin/env bash
# URN's table on Pascal VOC 2012 (arXiv 2112.07431): from image-level labels to the final networks on
# four backbones, each tested on val with twelve passes and a CRF. Ends in a report with their mIoU.
#
#   DATA_ROOT=VOC PRETRAINED=DIR SEAM=FILE [SEEDS="1"] [BACKBONES="..."] [GPUS=8] [STAGES="..."]
#   [MASKS=DIR] scripts/urn/voc.sh
#
# DATA_ROOT: VOCdevkit/VOC2012 with Annotations/ and ImageSets/Segmentation/trainaug.txt. SEAM: the
# released classifier (resnet38_SEAM.pth) from which the first one starts, head and all, or none.
# BACKBONES: of the final networks; the first network, which makes the weights for all of them, is
# Res2Net-101. STAGES: what runs, of "single heat crops masks first weights second"; what earlier ones
# write has to be there. MASKS: pseudo-masks to start from in place of the classifiers'. Published: 8
# GPUs x 2 images. See stages.sh.
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
require_data "the folder with VOCdevkit/VOC2012"
OUT=${OUT:-experiments/urn_voc}
SEEDS=${SEEDS:-1}
BACKBONES=${BACKBONES:-"wideresnet38 resnet101 scalenet101 res2net101"}
choose_stages single heat crops masks first weights second
if chosen single && [[ -z ${SEAM:-} ]]; then
  echo "SEAM is not set: SEAM=FILE $0, where FILE is the released classifier resnet38_SEAM.pth" >&2
  exit 2
fi
if chosen crops; then require_weights scalenet101; fi
if chosen first; then require_weights res2net101; fi
if chosen second; then for backbone in $BACKBONES; do require_weights "$backbone"; done; fi

voc=(--data_root "$DATA_ROOT")
passes=(@recipes/urn_voc_passes.args "${voc[@]}")
masking=(--dataset voc --year 2012_aug "${voc[@]}")
mapping=("${masking[@]}" --image_tags xml)
weighing=("${passes[@]}" @recipes/urn_voc_weights.args)
testing=("${passes[@]}" --val_split val --eval_crf --confidence msp response_scaling
  --metrics segmentation misclassification flagged)

if chosen single; then
  classifier=(@recipes/urn_voc_cam_single.args "${voc[@]}" --pretrained_backbone none)
  if [[ $SEAM != none ]]; then classifier+=(--init "$SEAM"); fi
  classify cam_single --random_seed 1
fi
if chosen heat; then map_classes cam_single heat_maps --cam_crf_iterations 10; fi
if chosen crops; then
  classifier=(@recipes/urn_voc_cam.args "${voc[@]}" --cam_dir "$OUT/heat_maps"
    --pretrained_backbone "$(weights_of scalenet101)")
  classify cam_crops --random_seed 1
fi
if chosen masks; then
  map_classes cam_crops cams --cam_inference multi_crop
  make_pseudo_masks cams pseudo_masks
fi
for seed in $SEEDS; do
  if chosen first; then
    segmenter=(@recipes/urn_voc_first.args "${voc[@]}"
      --pretrained_backbone "$(weights_of res2net101)")
    segment "first_seed$seed" --pseudo_dir "${MASKS:-$OUT/pseudo_masks}" --random_seed "$seed"
  fi
  if chosen weights; then weigh "first_seed$seed" "weights_seed$seed"; fi
  if chosen second; then
    segmenter=(@recipes/urn_voc_second.args "${voc[@]}" --weight_dir "$OUT/weights_seed$seed")
    for backbone in $BACKBONES; do
      own=(--model "pspnet_$backbone" --pretrained_backbone "$(weights_of "$backbone")")
      if [[ $backbone == resnet101 ]]; then own+=(--norm_eval); fi
      segment "second_${backbone}_seed$seed" "${own[@]}" --random_seed "$seed"
    done
  fi
done
if chosen first || chosen second; then report "$OUT" urn_voc "$OUT/results"; fi
