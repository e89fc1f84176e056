from utils.types import ForwardVariant, Score
from utils.variants import by_variant


def test_scores_of_one_variant_stand_together_in_the_order_of_the_first():
    clipped = ForwardVariant("clipped", lambda predict, network, images: predict(images))
    a, b, c, d = (
        Score(name, lambda prediction: prediction.logits, variant=variant)
        for name, variant in (("a", None), ("b", clipped), ("c", None), ("d", clipped))
    )
    assert by_variant([a, b, c, d]) == [[a, c], [b, d]]
    assert by_variant([]) == []
