"""Latency predictors: train on many devices, adapt to yours, see how good they are.

gnomon predictor train split=help_nasbench201                    learn from published measurements
gnomon predictor references bundle=bundles/gnomon-nasbench201    what to measure on a new device
gnomon predictor adapt bundle=bundles/gnomon-nasbench201 from=references.json
gnomon predictor evaluate split=help_nasbench201 samples=10      how good it is on unseen devices
"""
