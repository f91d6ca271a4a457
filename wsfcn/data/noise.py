"""Wrong image labels on purpose: what a set teaches when its annotators slip."""

from __future__ import annotations

from typing import Any

import numpy as np

from .sample import Dataset, Sample


class Mislabelled:
    """A data set with some image labels replaced by classes that were not named; masks stay.

    Each label of an image is replaced with probability `rate`, so an image keeps their number.
    Depends on (seed, index) alone.
    """

    def __init__(self, dataset: Dataset, rate: float, seed: int) -> None:
        self.dataset, self.rate, self.seed = dataset, rate, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def reduced(self, least: int) -> Mislabelled:
        """As `Photos.reduced`; scenes stay."""
        if not hasattr(self.dataset, "reduced"):
            return self
        return Mislabelled(self.dataset.reduced(least), self.rate, self.seed)

    def __getattr__(self, name: str) -> Any:  # its classes, the fingerprint of its files
        return getattr(self.dataset, name)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        random = np.random.default_rng([self.seed, index % len(self), 0x1AB])
        named, free = np.flatnonzero(sample.labels > 0), np.flatnonzero(sample.labels == 0)
        wrong = named[random.random(len(named)) < self.rate]
        labels = sample.labels.copy()
        labels[wrong] = 0
        labels[random.permutation(free)[: len(wrong)]] = 1
        return sample._replace(labels=labels)
