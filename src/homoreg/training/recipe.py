"""Recipes: everything a training run depends on, apart from its data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from homoreg.errors import ConfigError, UnknownNameError
from homoreg.models.m import FINE
from homoreg.names import suggest
from homoreg.synthesis.appearance import AppearanceConfig
from homoreg.synthesis.protocol import GeometryConfig
from homoreg.training.schedule import one_cycle

__all__ = ["Recipe", "get_recipe", "list_recipes"]


@dataclass(frozen=True)
class Recipe:
    """One line a choice; saved with the run, and compared when it is resumed."""

    name: str
    architecture: str  # registered architecture
    epochs: int = 175  # the schedule's length
    samples_per_epoch: int = 28_000  # the seed project's epoch
    batch_size: int = 16  # over all processes
    size: int = 128  # side n of the template in px
    half_size_share: float = 0.6  # first share of the epochs trained at n / 2, a quarter of the cost
    peak_rate: float = 1e-3  # of the one-cycle schedule
    warm_up: float = 0.02  # share of a cycle's steps in which the rate rises
    restarts: tuple[int, ...] = ()  # epochs after which the rate rises again: the weights there are annealed
    easy_until: float = 0.04  # share of the steps with easy, single-modality samples only ...
    easy_gone: float = 0.2  # ... and by which they have faded out
    weight_decay: float = 1e-4
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.999  # decay of the averaged weights, those that are evaluated and shipped
    precision: str = "auto"  # float32, bfloat16, or auto: bfloat16 on CUDA only
    validation_share: float = 0.08  # of each folder's images, never trained on
    validation_samples: int = 96
    validate_every: int = 5  # epochs
    snapshots: tuple[int, ...] = (70, 120, 175)  # epochs whose averaged weights are kept
    seed: int = 0
    network: dict[str, Any] = field(default_factory=dict)  # values of the architecture's config
    graphs: bool = False  # on one CUDA device, record each kind of step once, as a graph of its kernels
    fine_share: float = 0.0  # share of the full-size steps that show a quarter of the samples twice as large
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    appearance: AppearanceConfig = field(default_factory=AppearanceConfig)

    def __post_init__(self) -> None:
        for name in ("epochs", "samples_per_epoch", "batch_size", "validate_every", "validation_samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.size < 64 or self.size % 64:
            raise ConfigError(f"size is {self.size}; expected a multiple of 64, so that half of it fits too")
        if self.architecture == "m" and self.size >= FINE:
            raise ConfigError(
                f"size is {self.size}; expected under {FINE} for m, whose frames of that size and more are "
                "finer looks at answers"
            )
        if self.samples_per_epoch < self.batch_size:
            raise ConfigError(
                f"samples_per_epoch is {self.samples_per_epoch} and batch_size {self.batch_size}; an epoch "
                "must hold at least one batch: raise the first or lower the second"
            )
        for name in ("half_size_share", "warm_up", "easy_until", "easy_gone", "ema", "fine_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a share between 0 and 1")
        if list(self.restarts) != sorted(set(self.restarts)) or not all(
            0 < epoch < self.epochs for epoch in self.restarts
        ):
            raise ConfigError(
                f"restarts are {self.restarts}; expected rising epochs from 1 to {self.epochs - 1}"
            )
        if self.easy_until > self.easy_gone:
            raise ConfigError(
                f"easy_until is {self.easy_until} and easy_gone {self.easy_gone}; expected the first "
                "to be at most the second"
            )
        if not 0 <= self.validation_share < 1:
            raise ConfigError(f"validation_share is {self.validation_share}; expected 0 or more and under 1")
        if self.graphs and self.architecture != "m":
            raise ConfigError(
                f"graphs is True for {self.architecture}, whose steps change with the progress of the run; "
                "expected False"
            )
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}; expected a whole number from 0 to 2**63 - 1")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"precision is {self.precision!r}; expected auto, float32 or bfloat16")

    def easy_share(self, step: int) -> float:
        """Share of easy samples at a step: all at first, none in the end, linear between."""
        total = self.epochs * self.steps_per_epoch
        first, last = self.easy_until * total, self.easy_gone * total
        return min(1.0, max(0.0, (last - step) / max(1.0, last - first)))

    def is_fine(self, step: int) -> bool:
        """Whether a step of the full size shows fewer samples twice as large: spread evenly over the run."""
        return int((step + 1) * self.fine_share) > int(step * self.fine_share)

    def rate(self, step: int) -> float:
        """Learning rate of a step: one cycle, or several (SGDR, Loshchilov and Hutter, ICLR 2017)."""
        ends = [epoch * self.steps_per_epoch for epoch in (0, *self.restarts, self.epochs)]
        cycle = sum(step >= end for end in ends[1:-1])
        first, last = ends[cycle], ends[cycle + 1]
        return one_cycle(step - first, last - first, peak=self.peak_rate, warm_up=self.warm_up)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch."""
        return self.samples_per_epoch // self.batch_size

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Rebuild a recipe from :meth:`as_dict`.

        Raises
        ------
        ConfigError
            If a key is unknown, or name or architecture is missing.
        """
        values = dict(values)
        _check_keys(cls, values, "recipe")
        for required in ("name", "architecture"):
            if required not in values:
                raise ConfigError(f"the recipe has no {required!r}; expected one, such as 'm': add it")
        for key, kind in (("geometry", GeometryConfig), ("appearance", AppearanceConfig)):
            if key in values:
                _check_keys(kind, values[key], key)
                values[key] = kind(**values[key])
        for key in ("snapshots", "restarts"):
            if key in values:
                values[key] = tuple(values[key])
        return cls(**values)


def _check_keys(kind: type[Any], values: Any, what: str) -> None:
    """Raise for a key that is no field of a dataclass, rather than ignore it."""
    if not isinstance(values, dict):
        raise ConfigError(f"the {what} is {values!r}; expected names and values")
    known = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"unknown {what} key {unknown[0]!r}; known keys: {', '.join(sorted(known))}")


M_GEOMETRY = GeometryConfig(near=0.2, wide=0.1, tilt=10.0, turn=True, overhang=0.1, pseudo=0.25)

# Networks that regress offsets learn slowly: neither the wide rotations nor the rare looks are for them.
OFFSET_GEOMETRY = GeometryConfig(tilt=10.0, turn=True, overhang=0.05)
OFFSET_APPEARANCE = AppearanceConfig(
    curve=0.0, patchwork=0.0, palette=0.15, stripes=0.0, rgb_mix=0.0, night=0.0, jpeg=0.1
)

# For weights that match already: what would keep a new network from learning at all makes them general.
_M_FURTHER = Recipe(
    name="m_further",
    architecture="m",
    half_size_share=60 / 175,
    peak_rate=6e-4,
    warm_up=0.03,
    restarts=(120,),
    easy_until=0.0,
    easy_gone=0.0,
    ema=0.995,
    geometry=dataclasses.replace(M_GEOMETRY, pseudo=0.35),
    appearance=AppearanceConfig(
        faint=0.2,
        gamma=0.6,
        polarity=0.4,
        curve=0.15,
        patchwork=0.15,
        infrared_blur=0.35,
        vignette=0.2,
        rgb_mix=0.1,
        night=0.12,
    ),
)

# For an accelerator, from weights that match already: more attention in the matching, the refiners see the
# whole frame, and every third step is a finer look as registration takes it.
_M_WIDER = dataclasses.replace(
    _M_FURTHER,
    name="m_wider",
    batch_size=128,
    half_size_share=0.0,
    peak_rate=1.2e-3,
    warm_up=0.05,
    ema=0.998,
    restarts=(),
    network={"layers": 3, "context": [2, 2, 0]},
    graphs=True,
    fine_share=1 / 3,
    geometry=dataclasses.replace(_M_FURTHER.geometry, crop_min=0.35),
)

_RECIPES = {
    "clkn": Recipe(
        name="clkn",
        architecture="clkn",
        epochs=100,
        half_size_share=1.0,
        restarts=(50, 80, 94),  # a finer level's turn: homoreg.training.objectives.CLKN_SHARES
        snapshots=(),
        geometry=M_GEOMETRY,
    ),
    "dlkfm": Recipe(
        name="dlkfm", architecture="dlkfm", epochs=100, half_size_share=1.0, snapshots=(), geometry=M_GEOMETRY
    ),
    "dhn": Recipe(
        name="dhn",
        architecture="dhn",
        half_size_share=0.9,
        peak_rate=5e-4,
        warm_up=0.05,
        easy_until=0.25,
        easy_gone=0.6,
        geometry=OFFSET_GEOMETRY,
        appearance=OFFSET_APPEARANCE,
    ),
    "m": Recipe(name="m", architecture="m", geometry=M_GEOMETRY),
    "m_further": _M_FURTHER,
    # Closer views, as the finer looks see them: pictures enlarged beyond their own pixels.
    "m_finer": dataclasses.replace(
        _M_FURTHER,
        name="m_finer",
        half_size_share=0.0,
        peak_rate=4e-4,
        warm_up=0.04,
        restarts=(),
        geometry=dataclasses.replace(_M_FURTHER.geometry, crop_min=0.25, near=0.25),
    ),
    "m_wider": _M_WIDER,
    # On a CPU, after m_wider: few samples in full precision, half of the steps finer looks.
    "m_polish": dataclasses.replace(
        _M_WIDER,
        name="m_polish",
        epochs=55,
        batch_size=16,
        peak_rate=2e-4,
        ema=0.99,
        precision="float32",
        fine_share=0.5,
        snapshots=(),
    ),
    "mhn": Recipe(
        name="mhn",
        architecture="mhn",
        epochs=100,
        batch_size=32,
        half_size_share=0.96,  # the last stage alone sees more than half size
        warm_up=0.04,
        restarts=(78, 96),  # a cycle a stage: MHN_PHASES of the objective
        easy_until=0.15,
        easy_gone=0.4,
        ema=0.98,
        snapshots=(),
        geometry=OFFSET_GEOMETRY,
        appearance=OFFSET_APPEARANCE,
    ),
}


def list_recipes() -> list[str]:
    """Names of the recipes."""
    return sorted(_RECIPES)


def get_recipe(name: str, **changes: Any) -> Recipe:
    """Return a recipe by name, with some of its values changed.

    With other epochs the restarts keep their share of the run, unless they are given too: where a network
    learns part by part, they are where the next part's turn begins.

    Raises
    ------
    UnknownNameError
        If there is no such recipe.
    ConfigError
        If a change names no field or has an impossible value.
    """
    if name not in _RECIPES:
        known = list_recipes()
        raise UnknownNameError(
            f"no recipe is called {name!r}; known recipes: {', '.join(known)}{suggest(name, known)}"
        )
    _check_keys(Recipe, changes, "recipe")
    recipe = _RECIPES[name]
    epochs = changes.get("epochs", recipe.epochs)
    if "restarts" not in changes and epochs != recipe.epochs:
        moved = {round(restart * epochs / recipe.epochs) for restart in recipe.restarts}
        changes["restarts"] = tuple(sorted(restart for restart in moved if 0 < restart < epochs))
    return dataclasses.replace(recipe, **changes)
