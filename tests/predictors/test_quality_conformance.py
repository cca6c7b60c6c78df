from __future__ import annotations

from gnomon.predictors import EnsembleQualityPredictor
from gnomon.predictors.quality_mlp import ComparatorQuality, MLPQuality
from gnomon.predictors.quality_trees import BoostedTreesQuality
from gnomon.predictors.upper_gaussian_process import UpperGaussianProcess
from gnomon.testing import QualityPredictorSuite


class TestUpperGaussianProcess(QualityPredictorSuite):
    def make(self, space, seed):
        return UpperGaussianProcess(space, seed=seed)


class TestEnsemble(QualityPredictorSuite):
    def make(self, space, seed):
        return EnsembleQualityPredictor(space, seed=seed)


class TestBoostedTrees(QualityPredictorSuite):
    def make(self, space, seed):
        return BoostedTreesQuality(space, seed=seed, trees=40)


class TestMLP(QualityPredictorSuite):
    def make(self, space, seed):
        return MLPQuality(space, seed=seed, members=4, hidden=(32, 32), steps=120)


class TestComparator(QualityPredictorSuite):
    def make(self, space, seed):
        return ComparatorQuality(space, seed=seed, members=4, hidden=(32, 32), steps=120)
