"""What can be built: decisions, genotype algebra, torch modules, graph costs, deployables."""

from .additive import AdditiveEncoding, FoldedTables
from .algebra import GENE_DTYPE, GenotypeAlgebra, Genotypes
from .architecture import Architecture
from .base import SearchSpace, space_from_spec
from .costs import COST_NAMES, Costs
from .decision import Choice, Decision
from .deployable import Call, Deployable, Graph, TensorSpec
from .workload import Workload

__all__ = [
    "COST_NAMES",
    "GENE_DTYPE",
    "AdditiveEncoding",
    "Architecture",
    "Call",
    "Choice",
    "Costs",
    "Decision",
    "Deployable",
    "FoldedTables",
    "GenotypeAlgebra",
    "Genotypes",
    "Graph",
    "SearchSpace",
    "TensorSpec",
    "Workload",
    "space_from_spec",
]
