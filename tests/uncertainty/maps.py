"""Random smooth maps, and slow references: means of components, scaled responses."""

import cv2
import numpy as np
import torch


def smooth_logits(sigma, *, num_classes=19, size=(96, 128), images=1, seed=0, scale=3.0):
    """Gaussian-smoothed noise (N, C, H, W), float32; a smaller sigma gives more components."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((images * num_classes, *size)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), sigma) for plane in noise])
    return torch.from_numpy(smooth * (scale / smooth.std())).view(images, num_classes, *size)


def published_entropy(logits):
    """-sum p log(p + 1e-10) in float64."""
    probabilities = logits.double().softmax(1)
    return -(probabilities * (probabilities + 1e-10).log()).sum(1)


def per_component_means(classes, values):
    """Means (H, W), float64, component by component, and how many there were (OpenCV)."""
    means = np.full(classes.shape, np.nan)
    found = 0
    for index in np.unique(classes):
        mask = (classes == index).astype(np.uint8)
        number, components = cv2.connectedComponents(mask, connectivity=8)
        for component in range(1, number):
            place = np.where(components == component)
            means[place] = values[place].mean()
        found += number - 1
    assert not np.isnan(means).any()
    return means, found


def batch_means(classes, values):
    """``per_component_means`` of every image of a batch."""
    pairs = zip(classes.numpy(), values.double().numpy(), strict=True)
    return torch.from_numpy(np.stack([per_component_means(*pair)[0] for pair in pairs]))


def literal_response(likely, scales, *, reduce="max", normalize="image"):
    """Label, uncertainty and stored weights of response scaling with argmax, word for word.

    Every class of the decoded map in turn has its probabilities (C, H, W) raised to every scale,
    and the map is decoded again.
    """
    label = likely.argmax(0)
    classes = np.unique(label)
    restricted = likely[classes]
    variances = []
    for index in range(len(classes)):
        inside = []
        for scale in scales:
            altered = restricted.copy()
            altered[index] = restricted[index] ** scale
            inside.append(altered.argmax(0) == index)
        variances.append(np.var(np.array(inside, np.float64), axis=0))
    variance = np.max(variances, 0) if reduce == "max" else np.mean(variances, 0)
    if normalize == "absolute":
        values = variance / 0.25
    else:
        values = (variance - variance.min()) / (variance.max() - variance.min() + 1e-6)
    return label, values, np.floor((1 - values) * 255)
