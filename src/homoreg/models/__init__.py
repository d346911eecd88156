"""Architectures, their registry, and weights on disk."""

from homoreg.models.base import HomographyEstimate, HomographyModel
from homoreg.models.clkn import CLKN, CLKNConfig
from homoreg.models.dhn import DHN, DHNConfig
from homoreg.models.dlkfm import DLKFM, DLKFMConfig
from homoreg.models.m import M, MConfig
from homoreg.models.mhn import MHN, MHNConfig
from homoreg.models.registry import ARCHITECTURES, build, list_architectures, list_models
from homoreg.models.storage import create, load_model, save_weights

__all__ = [
    "ARCHITECTURES",
    "CLKN",
    "DHN",
    "DLKFM",
    "MHN",
    "CLKNConfig",
    "DHNConfig",
    "DLKFMConfig",
    "HomographyEstimate",
    "HomographyModel",
    "M",
    "MConfig",
    "MHNConfig",
    "build",
    "create",
    "list_architectures",
    "list_models",
    "load_model",
    "save_weights",
]
