"""How often 95 % intervals of a mean difference hold the true one, of normally distributed differences.

Run with Python 3 and numpy:

    python docs/results/statistics/intervals.py
"""

import itertools

import numpy as np

SAMPLES = 4000
# The 97.5 % quantiles of Student's distribution with one degree of freedom less than there are seeds.
STUDENT = {2: 12.7062, 3: 4.3027, 5: 2.7764, 6: 2.5706, 10: 2.2622}

rng = np.random.default_rng(1)
print("seeds  bootstrap  Student")
for seeds, quantile in STUDENT.items():
    if seeds <= 6:
        drawn = np.array(list(itertools.product(range(seeds), repeat=seeds)))
    else:
        drawn = rng.integers(0, seeds, (4000, seeds))
    held = np.zeros(2)
    half = quantile / np.sqrt(seeds)
    for _ in range(SAMPLES):
        values = rng.normal(size=seeds)
        low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
        held += (low <= 0 <= high, abs(values.mean()) <= half * values.std(ddof=1))
    bootstrap, student = held / SAMPLES
    print(f"{seeds:5}  {bootstrap:9.2f}  {student:7.2f}")
