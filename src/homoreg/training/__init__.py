"""Training: recipes, objectives, and a loop that can be cut at any instant and resumed."""

from homoreg.training.calibration import calibrate
from homoreg.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from homoreg.training.loop import Source, TrainingResult, train
from homoreg.training.objectives import get_objective
from homoreg.training.recipe import Recipe, get_recipe, list_recipes
from homoreg.training.schedule import EMA, one_cycle

__all__ = [
    "EMA",
    "Checkpoint",
    "Recipe",
    "Source",
    "TrainingResult",
    "calibrate",
    "get_objective",
    "get_recipe",
    "list_recipes",
    "load_checkpoint",
    "one_cycle",
    "save_checkpoint",
    "train",
]
