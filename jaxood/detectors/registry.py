"""Every detector, transform and view that has a name: what a method may be made of."""

from collections.abc import Iterable
from typing import TypeVar

from jaxood.context import View
from jaxood.detectors.adascale import AdaScaleA, AdaScaleL
from jaxood.detectors.aggregate import Aggregate
from jaxood.detectors.ash import ASHB, ASHP, ASHS, Scale
from jaxood.detectors.caref import CADRef, CARef
from jaxood.detectors.contract import Detector, Transform
from jaxood.detectors.dice import DICE
from jaxood.detectors.fdbd import FDBD
from jaxood.detectors.gmm import GMM
from jaxood.detectors.gradnorm import GradNorm
from jaxood.detectors.graduncertainty import GradUncertainty
from jaxood.detectors.gram import Gram
from jaxood.detectors.iodin import IODIN
from jaxood.detectors.kernel_pca import CoP, CoRP
from jaxood.detectors.kl_matching import KLMatching
from jaxood.detectors.logit_scores import GEN, KL, MSP, Energy, Entropy, MaxLogit
from jaxood.detectors.lts import LTS
from jaxood.detectors.mahalanobis import (
    SSD,
    Mahalanobis,
    MahalanobisNNGuide,
    MahalanobisPlusPlus,
)
from jaxood.detectors.mc_dropout import MCDropout
from jaxood.detectors.mcm import MCM
from jaxood.detectors.multi_mahalanobis import MultiMahalanobis
from jaxood.detectors.nac import NAC
from jaxood.detectors.nci import NCI
from jaxood.detectors.neglabel import NegLabel
from jaxood.detectors.neighbours import Knn, NNGuide
from jaxood.detectors.odin import ODIN
from jaxood.detectors.openmax import OpenMax
from jaxood.detectors.optfs import OptFS
from jaxood.detectors.pnml import PNML
from jaxood.detectors.rankfeat import RankFeat
from jaxood.detectors.react import ReAct
from jaxood.detectors.relation import Relation
from jaxood.detectors.rmds import RMDS, RMDSPlusPlus
from jaxood.detectors.sfp import SpatialPurification
from jaxood.detectors.she import SHE
from jaxood.detectors.temp_scaling import TempScaling
from jaxood.detectors.vim import Residual, ViM, ViMNNGuide
from jaxood.detectors.vra import VRA
from jaxood.detectors.weiper import WeiPer

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
        MahalanobisPlusPlus,
        MahalanobisNNGuide,
        MultiMahalanobis,
        Aggregate,
        SSD,
        RMDS,
        RMDSPlusPlus,
        GMM,
        SHE,
        FDBD,
        NCI,
        CARef,
        CADRef,
        WeiPer,
        CoP,
        CoRP,
        PNML,
        GradNorm,
        GradUncertainty,
        Relation,
        Gram,
        NAC,
        ODIN,
        IODIN,
        MCDropout,
        MCM,
        NegLabel,
    )
)

TRANSFORMS: dict[str, type[Transform]] = _by_name(
    (ReAct, VRA, ASHP, ASHB, ASHS, Scale, LTS, DICE, OptFS, AdaScaleA, AdaScaleL)
)

VIEWS: dict[str, type[View]] = _by_name((SpatialPurification, RankFeat))
