import pytest
import torch

from network import build_model


@pytest.mark.parametrize(("output_stride", "least"), [(8, 103), (16, 71)])
def test_smallest_input(output_stride, least):
    with torch.device("meta"):
        model = build_model("deeplabv3plus_xception", 3, output_stride=output_stride).eval()
    assert model.backbone.smallest_input == least
    features = model.backbone(torch.empty(1, 3, least, least, device="meta"))
    assert features["out"].shape == (1, 2048, 1, 1)
    with pytest.raises(RuntimeError):  # torch's own words, if the check were not there
        model.backbone(torch.empty(1, 3, least - 1, least, device="meta"))
    with pytest.raises(ValueError, match=f"{least - 1}x200 .* each side needs at least {least}"):
        model(torch.empty(1, 3, least - 1, 200, device="meta"))
