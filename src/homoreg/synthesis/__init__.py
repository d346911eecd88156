"""Aligned pairs to labelled samples: the seed protocol, drawn afresh or frozen to disk."""

from homoreg.synthesis.appearance import AppearanceConfig, infrared_appearance, palettes, rgb_appearance
from homoreg.synthesis.dataset import FrozenPair, SkyDataSet
from homoreg.synthesis.freezing import FrozenSet, write_skydata
from homoreg.synthesis.protocol import GeometryConfig, SampleBatch, draw_geometry, draw_samples
from homoreg.synthesis.random import Draw
from homoreg.synthesis.sources import ImageBank, SourcePair, find_pairs

__all__ = [
    "AppearanceConfig",
    "Draw",
    "FrozenPair",
    "FrozenSet",
    "GeometryConfig",
    "ImageBank",
    "SampleBatch",
    "SkyDataSet",
    "SourcePair",
    "draw_geometry",
    "draw_samples",
    "find_pairs",
    "infrared_appearance",
    "palettes",
    "rgb_appearance",
    "write_skydata",
]
