#!/usr/bin/env python3
"""Writes the files of this example: one per hospital and one that is held out.

Real data that scikit-learn ships: 569 tumours with 30 measurements each, benign or malignant (Breast Cancer Wisconsin).
Your own files need the same arrays: x_train, y_train, x_test, y_test, examples first.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer

FOLDER = Path(__file__).resolve().parent / "data"
PARTS = {"north": slice(0, 250), "south": slice(250, 370), "west": slice(370, 450)}
HELD_OUT = slice(450, None)


def main() -> None:
    """Scale, shuffle, cut."""
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0)  # real hospitals would agree on fixed scales beforehand
    order = np.random.default_rng(0).permutation(len(y))
    x, y = x[order].astype(np.float32), y[order].astype(np.int64)
    FOLDER.mkdir(exist_ok=True)
    # A trainer uses the first two arrays, the evaluator the last two; every file has all four.
    for name, rows in {**PARTS, "held-out": HELD_OUT}.items():
        np.savez(FOLDER / name, x_train=x[rows], y_train=y[rows], x_test=x[rows], y_test=y[rows])


if __name__ == "__main__":
    main()
