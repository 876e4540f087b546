"""VGG16 classifiers in torchvision's layout, of any width, for tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from volseg.models.networks.layers import NORMS, initialise


class VGG16(nn.Module):
    """VGG16 on 224 x 224 pixels; its names and order of layers are those of torchvision's vgg16 and vgg16_bn."""

    def __init__(self, width: int = 4, classes: int = 5, *, batch_norm: bool = False, colours: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = colours
        for level, convolutions in enumerate((2, 2, 3, 3, 3)):
            for _ in range(convolutions):
                out = width << min(level, 3)
                layers.append(nn.Conv2d(channels, out, 3, padding=1))
                layers += [nn.BatchNorm2d(out)] if batch_norm else []
                layers.append(nn.ReLU())
                channels = out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        hidden = 64 * width
        self.classifier = nn.Sequential(
            nn.Linear(49 * channels, hidden), nn.ReLU(), nn.Dropout(),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(),
            nn.Linear(hidden, classes),
        )  # fmt: skip
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.features(x).flatten(1))
        return out


def random_classifier(*, batch_norm: bool = False, **sizes: int) -> VGG16:
    """A classifier with random weights, biases and statistics, in eval mode."""
    torch.manual_seed(3)
    classifier = VGG16(batch_norm=batch_norm, **sizes)
    for layer in classifier.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.bias, std=0.1)
        if isinstance(layer, NORMS):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
            nn.init.normal_(layer.running_mean, std=0.2)  # not None here
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # likewise
    return classifier.eval()
