"""Architectures, their registry, and weights on disk."""

from homoreg.models.base import HomographyEstimate, HomographyModel
from homoreg.models.m import M, MConfig
from homoreg.models.registry import ARCHITECTURES, build, list_architectures, list_models
from homoreg.models.storage import create, load_model, save_weights

__all__ = [
    "ARCHITECTURES",
    "HomographyEstimate",
    "HomographyModel",
    "M",
    "MConfig",
    "build",
    "create",
    "list_architectures",
    "list_models",
    "load_model",
    "save_weights",
]
