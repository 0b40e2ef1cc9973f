"""Trainers as users write them; the tests load this module by name."""

import numpy as np


class Bare:
    """A constructor without parameters, no evaluate, no predict."""

    def init(self, seed):
        return {"w": np.zeros(2)}

    def train(self, params, config):
        raise RuntimeError("the disk\nwas eaten")


class WithContext:
    def __init__(self, context):
        self.context = context

    def init(self, seed):
        return {}

    def train(self, params, config):
        return None


class WithOptionalContext(WithContext):
    def __init__(self, context=None):
        super().__init__(context)


class Failing:
    def __init__(self):
        raise ValueError("no such sensor")


class NoTrain:
    def init(self, seed):
        return {}


not_callable = 3
