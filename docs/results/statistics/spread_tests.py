"""How often tests of the spread reject, for two samples of n values: the numbers in docs/compare/statistics.md.

Run with Python 3, numpy and scipy (a few minutes): python spread_tests.py
"""

import itertools

import numpy as np
from scipy import stats

RUNS = 4000
LEVEL = 0.05


def halves(count):
    """Every way to choose count of 2 count values, as rows of zeros and ones."""
    chosen = list(itertools.combinations(range(2 * count), count))
    rows = np.zeros((len(chosen), 2 * count))
    for row, indices in zip(rows, chosen):
        row[list(indices)] = 1
    return rows


def permutation(one, other, rows):
    """The p-value of the permutation test of the difference of the means."""
    count, values = len(one), np.concatenate([one, other])
    chosen = rows @ values
    differences = np.abs(2 * chosen - values.sum()) / count
    return (differences >= abs(one.mean() - other.mean()) - 1e-12).mean()


def rejections(count, ratio, draw):
    whole, short = halves(count), halves(count - 1)
    found = np.zeros(4)
    for _ in range(RUNS):
        one, other = draw(count), ratio * draw(count)
        first, second = (np.sort(np.abs(values - np.median(values))) for values in (one, other))
        # Only of an odd number of values one deviation is always zero.
        first_kept, second_kept, rows = (first[1:], second[1:], short) if count % 2 else (first, second, whole)
        p_values = [
            stats.levene(one, other, center="median").pvalue,
            permutation(first, second, whole),
            permutation(first_kept, second_kept, rows),
            stats.bartlett(one, other).pvalue,
        ]
        found += np.array(p_values) <= LEVEL
    return found / RUNS


def main():
    rng = np.random.default_rng(0)
    draws = {
        "normal": rng.standard_normal,
        "t, 3 degrees": lambda count: rng.standard_t(3, count),
        "exponential": lambda count: rng.exponential(size=count),
    }
    print("n, distribution, ratio: Brown-Forsythe F, permutation, permutation without the zero, Bartlett")
    for count in (5, 6):
        cases = [(name, 1) for name in draws] + [("normal", 3), ("normal", 5)]
        for name, ratio in cases:
            numbers = rejections(count, ratio, draws[name])
            print(f"{count}, {name}, {ratio}:", " ".join(f"{one:.3f}" for one in numbers), flush=True)


main()
