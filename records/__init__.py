"""What is kept: measurements, evaluations, settings and the readers of published tables."""

from ..search_spaces import Workload
from .evaluation import Evaluation
from .measurement import STATISTICS, Fingerprint, Measurement, Setting, Statistic, Verdict
from .pool import DevicePool
from .shared_training import ChoiceCount, SharedTraining
from .study_summary import ModelRow, ReferenceRow, StudySummary, TrialRow
from .table import ArchitectureTable

__all__ = [
    "STATISTICS",
    "ArchitectureTable",
    "ChoiceCount",
    "DevicePool",
    "Evaluation",
    "Fingerprint",
    "Measurement",
    "ModelRow",
    "ReferenceRow",
    "Setting",
    "SharedTraining",
    "Statistic",
    "StudySummary",
    "TrialRow",
    "Verdict",
    "Workload",
]
