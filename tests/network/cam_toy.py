"""A backbone with the four features of a CAM network that is small enough for every test."""

from torch import nn

from network.backbone.base import Backbone, Feature
from network.cam import CamNetwork


class TinyBackbone(Backbone):
    """Four stages of one convolution each, output stride 4; each pixel of it sees 15 x 15."""

    smallest_input = 4

    def __init__(self, width=8):
        widths = {"low_level": width, "middle": width, "aux": width, "out": width}
        super().__init__({name: Feature(name, channels) for name, channels in widths.items()})
        strides = {"low_level": 2, "middle": 2, "aux": 1, "out": 1}
        before = 3
        for name, stride in strides.items():
            conv = nn.Conv2d(before, width, 3, stride, padding=1)
            self.add_module(name, nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU()))
            before = width

    def stages(self):
        return tuple((name, (self.get_submodule(name),)) for name in self.taps)


def cam_network(classes=3, background=0, width=8, **options):
    return CamNetwork(TinyBackbone(width), classes, background=background, **options)
