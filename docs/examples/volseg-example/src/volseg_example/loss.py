"""The Tversky loss."""

from torch import Tensor


def tversky(output: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Dice loss in which missed membrane costs more than false membrane (Salehi et al. 2017, arXiv 1706.05721)."""
    probability = output.sigmoid()
    true = (weights * probability * targets).sum()
    false = (weights * probability * (1 - targets)).sum()
    missed = (weights * (1 - probability) * targets).sum()
    return 1 - (true + 1) / (true + 0.3 * false + 0.7 * missed + 1)
