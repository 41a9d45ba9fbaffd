"""Every detector, transform and view that has a name: what a method may be made of."""

from collections.abc import Iterable
from typing import TypeVar

from jaxood.context import View
from jaxood.detectors.adascale import AdaScaleA, AdaScaleL
from jaxood.detectors.ash import ASHB, ASHP, ASHS, Scale
from jaxood.detectors.contract import Detector, Transform
from jaxood.detectors.dice import DICE
from jaxood.detectors.fdbd import FDBD
from jaxood.detectors.gmm import GMM
from jaxood.detectors.gradnorm import GradNorm
from jaxood.detectors.gram import Gram
from jaxood.detectors.kl_matching import KLMatching
from jaxood.detectors.logit_scores import GEN, KL, MSP, Energy, Entropy, MaxLogit
from jaxood.detectors.mahalanobis import SSD, Mahalanobis, MahalanobisNNGuide
from jaxood.detectors.nci import NCI
from jaxood.detectors.neighbours import Knn, NNGuide
from jaxood.detectors.odin import ODIN
from jaxood.detectors.openmax import OpenMax
from jaxood.detectors.rankfeat import RankFeat
from jaxood.detectors.react import ReAct
from jaxood.detectors.relation import Relation
from jaxood.detectors.rmds import RMDS
from jaxood.detectors.sfp import SpatialPurification
from jaxood.detectors.she import SHE
from jaxood.detectors.temp_scaling import TempScaling
from jaxood.detectors.vim import Residual, ViM, ViMNNGuide
from jaxood.detectors.vra import VRA

Part = TypeVar("Part", Detector, Transform, View)


def _by_name(classes: Iterable[type[Part]]) -> dict[str, type[Part]]:
    return {one.name: one for one in classes}


DETECTORS: dict[str, type[Detector]] = _by_name(
    (
        MSP,
        MaxLogit,
        Energy,
        KL,
        Entropy,
        GEN,
        KLMatching,
        TempScaling,
        OpenMax,
        Knn,
        NNGuide,
        ViM,
        ViMNNGuide,
        Residual,
        Mahalanobis,
        MahalanobisNNGuide,
        SSD,
        RMDS,
        GMM,
        SHE,
        FDBD,
        NCI,
        GradNorm,
        Relation,
        Gram,
        ODIN,
    )
)

TRANSFORMS: dict[str, type[Transform]] = _by_name(
    (ReAct, VRA, ASHP, ASHB, ASHS, Scale, DICE, AdaScaleA, AdaScaleL)
)

VIEWS: dict[str, type[View]] = _by_name((SpatialPurification, RankFeat))
