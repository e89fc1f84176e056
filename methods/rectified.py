"""Stage two of the adaptation: pseudo labels of the target domain, rectified by uncertainty."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from datasets.base import SegDataset
from losses.rectified import rectified_losses
from methods.mrnet import MRNet, head_logits
from utils.log import logger
from utils.types import SegOutput

DIRECTIONS = ("per_head", "main_aux", "aux_main", "mse")


class Rectified(MRNet):
    """Train both heads on pseudo labels, each pixel's loss weighted by how far the heads agree.

    Zheng and Yang, "Rectifying Pseudo Label Learning via Uncertainty Estimation for Domain
    Adaptive Semantic Segmentation" (IJCV 2021): mean(exp(-V) CE) + mean(V), V the divergence of
    the two heads at a pixel. ``--pseudo_loss plain`` is the usual cross entropy of both heads.
    Images without labels are read where a weight of stage one's losses on them is above 0.
    """

    defaults: ClassVar[dict[str, Any]] = {
        **MRNet.defaults,
        "lr": 1e-3,
        "lambda_adv_target1": 0.0,
        "lambda_adv_target2": 0.0,
    }

    @classmethod
    def add_flags(cls, group: _ArgumentGroup) -> None:
        """How pseudo labels are believed."""
        add = group.add_argument
        add("--pseudo_loss", choices=("rectified", "plain"), default="rectified")
        add(
            "--var_direction",
            choices=DIRECTIONS,
            default="per_head",
            help="of V: KL from the other head (per_head), of main from aux, aux from main",
        )
        add("--rect_detach_var", action="store_true", help="no gradient through exp(-V)")
        add("--rect_norm", choices=("all", "valid"), default="all", help="pixels of the means")
        add("--stage2_target_forward", action="store_true", help="norms see unlabelled images, too")

    @classmethod
    def reads_pseudo_labels(cls, opts: Namespace) -> bool:
        """Always, in place of labels."""
        return True

    @classmethod
    def reads_target(cls, opts: Namespace) -> bool:
        """Where a loss or, if asked for, the batch norms read unlabelled images."""
        adversarial = opts.lambda_adv_target1 or opts.lambda_adv_target2
        agreement = opts.lambda_kl_target or opts.lambda_me_target
        return bool(adversarial or agreement or opts.stage2_target_forward)

    def prepare(self, dataset: SegDataset, cache_dir: Path) -> None:
        """Warn of a flag that the rectified loss does not read."""
        super().prepare(dataset, cache_dir)
        if self.opts.pseudo_loss == "rectified" and self.opts.only_hard_label:
            logger.warning(
                "--only_hard_label has no effect on --pseudo_loss rectified, as published"
            )

    def labels_loss(self, output: SegOutput, labels: Tensor, class_weights: Tensor) -> Tensor:
        """L_rect(main; aux) + lambda_seg L_rect(aux; main), or plain cross entropy."""
        if self.opts.pseudo_loss == "plain":
            return super().labels_loss(output, labels, class_weights)
        main, aux = rectified_losses(
            head_logits(output, "main"),
            head_logits(output, "aux"),
            labels,
            class_weights=class_weights,
            direction=self.opts.var_direction,
            detach=self.opts.rect_detach_var,
            normalize=self.opts.rect_norm,
        )
        return main + self.opts.lambda_seg * aux
