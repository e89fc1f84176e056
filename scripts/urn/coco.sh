#!/usr/bin/env bash
# URN's table on COCO-14 (arXiv 2112.07431): from image-level labels to the final networks on four
# backbones, each tested on val with twelve passes and a CRF. Ends in a report with their mIoU.
#
#   DATA_ROOT=COCO PRETRAINED=DIR [SEEDS="1"] [BACKBONES="..."] [GPUS=16] [STAGES="..."] [MASKS=DIR]
#   scripts/urn/coco.sh
#
# DATA_ROOT: images/ and voc_format/. BACKBONES: of the final networks; the first network, which makes
# the weights for all of them, is ScaleNet-101. STAGES: what runs, of "classifier masks first weights
# second"; what earlier ones write has to be there. MASKS: pseudo-masks to start from in place of the
# classifier's. Published: 16 GPUs x 2 images. See stages.sh.
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
require_data "the folder with images/ and voc_format/"
OUT=${OUT:-experiments/urn_coco}
SEEDS=${SEEDS:-1}
BACKBONES=${BACKBONES:-"wideresnet38 resnet101 scalenet101 res2net101"}
choose_stages classifier masks first weights second
if chosen classifier || chosen first; then require_weights scalenet101; fi
if chosen second; then for backbone in $BACKBONES; do require_weights "$backbone"; done; fi

coco=(--data_root "$DATA_ROOT")
passes=(@recipes/urn_coco_passes.args "${coco[@]}")
masking=(--dataset coco14 "${coco[@]}")
mapping=("${masking[@]}" --image_tags masks --cam_inference multi_crop)
weighing=("${passes[@]}" @recipes/urn_coco_weights.args)
measured=(--val_split val --eval_crf --confidence msp response_scaling
  --metrics segmentation misclassification flagged)

if chosen classifier; then
  classifier=(@recipes/urn_coco_cam.args "${coco[@]}"
    --pretrained_backbone "$(weights_of scalenet101)")
  classify cam --random_seed 1
fi
if chosen masks; then
  map_classes cam cams
  make_pseudo_masks cams pseudo_masks
fi
for seed in $SEEDS; do
  if chosen first; then
    segmenter=(@recipes/urn_coco_first.args "${coco[@]}"
      --pretrained_backbone "$(weights_of scalenet101)")
    testing=("${passes[@]}" "${measured[@]}")
    segment "first_seed$seed" --pseudo_dir "${MASKS:-$OUT/pseudo_masks}" --random_seed "$seed"
  fi
  if chosen weights; then weigh "first_seed$seed" "weights_seed$seed"; fi
  if chosen second; then
    segmenter=(@recipes/urn_coco_second.args "${coco[@]}" --weight_dir "$OUT/weights_seed$seed")
    for backbone in $BACKBONES; do
      own=(--model "pspnet_$backbone" --pretrained_backbone "$(weights_of "$backbone")") seen=()
      if [[ $backbone == resnet101 ]]; then own+=(--norm_eval); fi
      if [[ $backbone != scalenet101 ]]; then
        own+=(--crop_size 512)
        seen=(--infer_short_side 512 --sliding_window 512)
      fi
      testing=("${passes[@]}" "${seen[@]}" "${measured[@]}")
      segment "second_${backbone}_seed$seed" "${own[@]}" --random_seed "$seed"
    done
  fi
done
if chosen first || chosen second; then report "$OUT" urn_coco "$OUT/results"; fi
