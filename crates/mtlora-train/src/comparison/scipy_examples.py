"""Makes scipy_examples.json: what scipy computes for a few pairs of samples.

Run with Python 3 and scipy:

    python scipy_examples.py > scipy_examples.json
"""

import itertools
import json
import sys

import numpy as np
import scipy
from scipy import stats


def deviations(values):
    """Absolute deviations from the median, without the structural zero of an odd number of values."""
    sorted_deviations = np.sort(np.abs(values - np.median(values)))
    return sorted_deviations[1:] if len(values) % 2 else sorted_deviations


def mean_difference(one, other, axis):
    return np.mean(one, axis=axis) - np.mean(other, axis=axis)


def pair(one, other):
    # Multiples of 1/64 have exact sums. With others, outcomes that are equal differ by their rounding, and scipy, which compares
    # them almost exactly, would miss that they are.
    one, other = (np.round(np.array(values) * 64) / 64 for values in (one, other))
    count = len(one)
    differences = one - other
    t = stats.t.interval(0.95, count - 1, loc=one.mean(), scale=stats.sem(one))
    if count <= 6:
        # scipy draws bootstrap samples. All of them are few enough here, so numpy's percentiles of all are exact.
        means = [np.mean(drawn) for drawn in itertools.product(differences, repeat=count)]
        bootstrap = np.percentile(means, [2.5, 97.5])
        tolerance = 1e-12
    else:
        found = stats.bootstrap(
            (differences,), np.mean, method="percentile", n_resamples=200_000, rng=np.random.default_rng(1)
        )
        bootstrap = [found.confidence_interval.low, found.confidence_interval.high]
        tolerance = 0.03 * (bootstrap[1] - bootstrap[0])
    exact = count <= 8
    drawn = {"n_resamples": np.inf} if exact else {"n_resamples": 200_000, "rng": np.random.default_rng(2)}
    flip = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", vectorized=True, **drawn
    )
    spread = stats.permutation_test(
        (deviations(one), deviations(other)),
        mean_difference,
        permutation_type="independent",
        vectorized=True,
        **drawn,
    )
    return {
        "one": one.tolist(),
        "other": other.tolist(),
        "mean": float(one.mean()),
        "standard_deviation": float(one.std(ddof=1)),
        "interval_of_mean": [float(end) for end in t],
        "bootstrap_interval": [float(end) for end in bootstrap],
        "bootstrap_tolerance": float(tolerance),
        "sign_flip": float(flip.pvalue),
        "spread": float(spread.pvalue),
        "drawn_tolerance": 1e-12 if exact else 0.005,
    }


rng = np.random.default_rng(20240607)
pairs = [
    pair([88.1, 87.4, 88.9, 87.9, 88.3], [87.2, 87.0, 88.1, 88.0, 86.9]),
    pair([0.71, 0.64, 0.69, 0.55, 0.66], [0.68, 0.67, 0.66, 0.68, 0.67]),
    pair([1.0, 1.0, 2.0], [1.0, 3.0, 2.0]),
]
for count in (4, 6, 7, 8, 20):
    one = np.round(rng.normal(80, 1.5, count), 2)
    other = np.round(one - 0.3 + rng.normal(0, 0.8, count), 2)
    pairs.append(pair(one, other))
p_values = [0.03125, 0.5, 0.001, 0.02, 0.02, 0.9]
order = np.argsort(p_values, kind="stable")
steps = [min(1, (len(p_values) - rank) * p_values[index]) for rank, index in enumerate(order)]
holm = np.empty(len(p_values))
holm[order] = np.maximum.accumulate(steps)
json.dump(
    {"made_by": f"scipy {scipy.__version__}", "pairs": pairs, "p_values": p_values, "holm": holm.tolist()},
    sys.stdout,
    indent=1,
)
print()
