"""Any metric for each member of an ensemble, beside the ensemble itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from metrics.base import StreamingMetric
from utils.types import Batch, ForwardVariant, Prediction


class MemberMetrics:
    """A metric of every member's own prediction, under ``member`` by the member's name.

    Where a member was sampled several times, its prediction is the mean softmax of its samples.

    Args:
        names: of the members, in the order of ``member_logits``.
        build: makes one metric.
    """

    needs = frozenset({"member_logits"})
    variant: ForwardVariant | None = None

    def __init__(self, names: Sequence[str], build: Callable[[], StreamingMetric]) -> None:
        self.metrics = {name: build() for name in names}

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Add one batch to every member's sums."""
        assert prediction.member_logits is not None
        samples = prediction.member_logits.unflatten(0, (len(self.metrics), -1))
        for metric, logits in zip(self.metrics.values(), samples, strict=True):
            # Without the division by their number: it changes no softmax.
            mean = logits[0] if len(logits) == 1 else logits.log_softmax(2).logsumexp(0)
            metric.update(batch, Prediction(mean))

    def all_reduce(self) -> None:
        """Add up over the processes."""
        for metric in self.metrics.values():
            metric.all_reduce()

    def compute(self) -> dict[str, Any]:
        """The total of every member's metric."""
        totals = {name: metric.compute() for name, metric in self.metrics.items()}
        return {"member": {name: results["total"] for name, results in totals.items() if results}}
