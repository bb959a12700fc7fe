"""Configuration and results of the train stage. A method is five parts: encoding, field, renderer, sampler, losses.

The defaults are the method ``quoin``; configs/methods/ has it and published ones. Lengths without a unit are in the
block's own: half its longest side.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from quoin.pipeline.core.config import StageConfig, StageResult
from quoin.pipeline.core.errors import QuoinError


class HashEncodingConfig(StageConfig):
    """Multi-resolution hash grid (instant-ngp), coarse to fine (Neuralangelo)."""

    kind: Literal["hash"] = "hash"
    levels: int = Field(10, ge=1, le=16)
    coarsest: int = Field(16, ge=2)  # cells along the block at the coarsest level
    finest: int = Field(512, ge=2)  # and at the finest
    log2_table: int = Field(18, ge=10, le=24)  # log2 of entries per level
    features: int = Field(2, ge=1, le=8)  # numbers per entry
    start_levels: int = Field(4, ge=1)  # active from the start
    coarse_to_fine: float = Field(0.35, gt=0, le=1)  # share of the steps until all levels are


class FrequencyEncodingConfig(StageConfig):
    """Sines and cosines of doubling frequency (NeRF)."""

    kind: Literal["frequency"] = "frequency"
    frequencies: int = Field(6, ge=0, le=16)


class FourierEncodingConfig(StageConfig):
    """Sines and cosines of random directions (Tancik et al.)."""

    kind: Literal["fourier"] = "fourier"
    waves: int = Field(64, ge=1)
    scale: float = Field(4.0, gt=0)  # standard deviation of the frequencies, cycles per unit


class GridEncodingConfig(StageConfig):
    """A dense trainable grid."""

    kind: Literal["grid"] = "grid"
    resolution: int = Field(128, ge=2, le=512)  # cells along the block
    features: int = Field(4, ge=1)


EncodingConfig = Annotated[
    HashEncodingConfig | FrequencyEncodingConfig | FourierEncodingConfig | GridEncodingConfig,
    Field(discriminator="kind"),
]


class SurfaceConfig(StageConfig):
    """The signed distance, or another value of that sign: what it starts as, and the network that corrects it."""

    # seed: the volume fused from known points and depths; empty: nothing anywhere, for densities
    start: Literal["seed", "sphere", "inside sphere", "empty"] = "seed"
    layers: int = Field(1, ge=1, le=12)
    width: int = Field(64, ge=8)
    skip: int | None = Field(None, ge=1)  # hidden layer, from 0, that sees the encoding again
    weight_norm: bool = False
    features: int = Field(15, ge=1)  # handed to the colour network
    # by position: of the network itself, or by differences over a cell of the finest active level (Neuralangelo)
    gradient: Literal["analytic", "differences"] = "analytic"
    distance: bool = True  # whether the value is one; if not (density, occupancy), it is meshed by its sign alone


class ColorConfig(StageConfig):
    """The colour network, and what differs from photo to photo."""

    layers: int = Field(2, ge=1, le=8)
    width: int = Field(64, ge=8)
    frequencies: int = Field(0, ge=0, le=8)  # of the view direction
    gain: bool = True  # a factor per photo and channel
    code: int = Field(8, ge=0)  # numbers per photo that the network sees


class BackgroundConfig(StageConfig):
    """The density of all that lies outside the block, in contracted space."""

    samples: int = Field(6, ge=2)  # per ray


class NeusRendererConfig(StageConfig):
    """Opacity by the logistic of NeuS."""

    kind: Literal["neus"] = "neus"
    sharpness: float = Field(60.0, gt=0)  # 1/s at the start
    anneal: float = Field(0.25, gt=0, le=1)  # share of the steps over which the true slope takes over


class LaplaceRendererConfig(StageConfig):
    """Density by the Laplace distribution of VolSDF."""

    kind: Literal["laplace"] = "laplace"
    beta: float = Field(0.1, gt=0)  # at the start


class DensityRendererConfig(StageConfig):
    """A density of its own, which knows no distance (NeRF)."""

    kind: Literal["density"] = "density"
    scale: float = Field(30.0, gt=0)  # per unit of length; the surface is where density is 0.69 of it


class SurfaceRendererConfig(StageConfig):
    """The colour of the first surface, and nothing else (DVR, IDR)."""

    kind: Literal["surface"] = "surface"


RendererConfig = Annotated[
    NeusRendererConfig | LaplaceRendererConfig | DensityRendererConfig | SurfaceRendererConfig,
    Field(discriminator="kind"),
]


class GuidedSamplerConfig(StageConfig):
    """Samples where a cached volume shows the surface; the network is not asked."""

    kind: Literal["guided"] = "guided"
    samples: int = Field(16, ge=4)  # per ray


class ImportanceSamplerConfig(StageConfig):
    """Even samples, then rounds of more where the field shows the surface (NeuS)."""

    kind: Literal["importance"] = "importance"
    coarse: int = Field(64, ge=4)
    rounds: int = Field(4, ge=1)
    per_round: int = Field(16, ge=1)


class HierarchicalSamplerConfig(StageConfig):
    """Even samples, then more by their weights (NeRF)."""

    kind: Literal["hierarchical"] = "hierarchical"
    coarse: int = Field(64, ge=4)
    fine: int = Field(128, ge=4)


class BoundedSamplerConfig(StageConfig):
    """Samples whose opacity is right to a bound (VolSDF)."""

    kind: Literal["bounded"] = "bounded"
    samples: int = Field(64, ge=4)
    search: int = Field(128, ge=16)  # evaluations a round
    rounds: int = Field(5, ge=1)
    error: float = Field(0.1, gt=0, lt=1)


class WindowSamplerConfig(StageConfig):
    """Samples in a window around the cached surface, on both sides of it, and rounds of more (NeuralRecon-W)."""

    kind: Literal["window"] = "window"
    window: int = Field(8, ge=2)
    beside: int = Field(5, ge=2)  # on each side
    rounds: int = Field(2, ge=1)
    per_round: int = Field(8, ge=1)
    half_width: float = Field(16.0, gt=0)  # cells of the cached volume


class TraceSamplerConfig(StageConfig):
    """The first surface, by sphere tracing, and by marching where that does not arrive (IDR)."""

    kind: Literal["trace"] = "trace"
    iterations: int = Field(10, ge=1)
    march: int = Field(100, ge=2)  # even samples
    secants: int = Field(8, ge=0)


class MarchSamplerConfig(StageConfig):
    """The first surface, by the first change of sign among even samples (DVR)."""

    kind: Literal["march"] = "march"
    steps: int = Field(128, ge=2)
    secants: int = Field(8, ge=0)


SamplerConfig = Annotated[
    GuidedSamplerConfig
    | ImportanceSamplerConfig
    | HierarchicalSamplerConfig
    | BoundedSamplerConfig
    | WindowSamplerConfig
    | TraceSamplerConfig
    | MarchSamplerConfig,
    Field(discriminator="kind"),
]


class SdfCacheConfig(StageConfig):
    """The cached SDF volume: where training starts, and what guides its samples."""

    resolution: int = Field(256, ge=32, le=512)  # cells along the longest side
    refresh_every: int = Field(1000, ge=10)  # steps between refreshes near the surface


class LossWeightsConfig(StageConfig):
    """Weights of the loss terms."""

    colour: float = Field(2.0, ge=0)  # absolute differences
    colour_squared: float = Field(0.0, ge=0)  # squared ones
    eikonal: float = Field(0.1, ge=0)
    points: float = Field(2.0, ge=0)  # known points lie on the surface
    normals: float = Field(0.3, ge=0)  # and it is turned as those on planes are
    free: float = Field(2.0, ge=0)  # nothing lies before them
    patch: float = Field(0.15, ge=0)  # patches look alike in all photos
    patch_after: float = Field(0.12, ge=0, lt=1)  # share of the steps before that
    opacity: float = Field(0.0, ge=0)  # entropy of the rays' opacity: no fog
    curvature: float = Field(0.0, ge=0)  # how far slopes change over a cell
    occupancy: float = Field(0.0, ge=0)  # free space is empty, what lies behind known points is not
    sky: float = Field(0.1, ge=0)  # nothing stands before sky
    kind: float = Field(0.5, ge=0)  # floor, ceiling, wall or other are as first guessed
    layout: float = Field(0.05, ge=0)  # floors and ceilings are level, walls upright and along the frame

    @property
    def has_color_loss(self) -> bool:
        """Whether photos teach colours at all."""
        return self.colour > 0 or self.colour_squared > 0


class LearningRateConfig(StageConfig):
    """Learning rates of Adam."""

    grid: float = Field(2e-3, gt=0)  # of grids
    surface: float = Field(4e-4, gt=0)  # of the surface network: low, for the seed is good and must not be shaken
    colour: float = Field(3e-3, gt=0)  # of everything else
    final: float = Field(0.05, gt=0, le=1)  # factor at the end of the cosine
    cameras: float = Field(0.0, ge=0)  # of poses and focal lengths, pixels a step: 0.05; 0 keeps them as given


class TrainConfig(StageConfig):
    """How one block's surface is trained."""

    method: str = "quoin"  # name in configs/methods/, or the path of such a file
    steps: int = Field(2000, ge=1)  # optimiser steps per block, or fewer:
    budget_minutes: float | None = Field(None, gt=0)  # for all blocks, one after the other
    rays: int = Field(1024, ge=64)  # per step
    points: int = Field(2048, ge=16)  # known points, free-space points and uniform points per step (each)
    patches: int = Field(512, ge=16)  # rays of a step whose patches are compared between photos
    encoding: EncodingConfig = HashEncodingConfig()
    surface: SurfaceConfig = SurfaceConfig()
    colour: ColorConfig = ColorConfig()
    outside: BackgroundConfig = BackgroundConfig()
    renderer: RendererConfig = NeusRendererConfig()
    sampler: SamplerConfig = GuidedSamplerConfig()
    cache: SdfCacheConfig = SdfCacheConfig()
    losses: LossWeightsConfig = LossWeightsConfig()
    rates: LearningRateConfig = LearningRateConfig()
    held_out_share: float = Field(0.02, ge=0, le=0.5)  # share of the photos' tiles that is never trained on
    measure_every: int = Field(250, ge=1)  # steps between held-out measurements
    checkpoint_minutes: float = Field(2.0, gt=0)  # between checkpoints
    preview_minutes: float = Field(3.0, ge=0)  # between previews, and one at the end; 0: none
    # voxels the surface may move in a fortieth of the training and count as still; what follows is cut short; 0: never
    settle: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def check_compatibility(self) -> TrainConfig:
        """QuoinError where two parts are chosen that do not go together."""
        on_surface, grid = self.renderer.kind == "surface", self.encoding.kind in ("hash", "grid")
        by_differences = self.surface.gradient == "differences"
        kinds = f"renderer {self.renderer.kind}, sampler {self.sampler.kind}, encoding {self.encoding.kind}"
        for wrong, what, hint in (
            (
                on_surface != (self.sampler.kind in ("trace", "march")),
                "Samples on the surface and the renderer surface go together",
                "take both, or neither",
            ),
            (
                on_surface and grid,
                "Surface rendering needs an encoding with derivatives by position, which grids do not have",
                "take encoding frequency or fourier",
            ),
            (
                on_surface and self.losses.patch > 0,
                "Patches are compared where a volume is entered, which surface rendering does not have",
                "set losses.patch to 0",
            ),
            (
                self.rates.cameras > 0 and self.losses.patch == 0,
                "Cameras are refined by comparing patches between photos",
                "set losses.patch above 0, or rates.cameras to 0",
            ),
            (
                by_differences and not grid,
                "Differences are taken over a cell of a grid",
                "take encoding hash or grid, or surface.gradient analytic",
            ),
            (
                self.losses.curvature > 0 and not by_differences,
                "Curvature comes with a gradient by differences",
                "set surface.gradient to differences, or losses.curvature to 0",
            ),
            (
                self.surface.skip is not None and self.surface.skip >= self.surface.layers,
                f"There is no hidden layer {self.surface.skip} of {self.surface.layers} to see the encoding again",
                "set surface.skip below surface.layers",
            ),
        ):
            if wrong:
                raise QuoinError(what, where=f"train: {kinds}", hint=hint)
        return self


class BlockResult(StageResult):
    """What training one block left."""

    block: str
    steps: int
    seconds: float
    heldout_psnr_db: float | None  # None where no pixel was held out
    rays_per_s: float | None  # None where too few steps were left to tell
    n_bricks: int
    peak_memory_bytes: int  # of the process on a CPU, on the device on a GPU
    device: str
    rays: int = 0  # per step at the end; fewer than configured where memory did not suffice
    memory_level: int = 0  # times that the training was begun anew with photos of half the size and half the rays,
    memory_reason: str = ""  # and why the last time


class TrainResult(StageResult):
    """All blocks."""

    blocks: list[BlockResult]
    failed_blocks: dict[str, str] = Field(default_factory=dict)  # blocks that could not be trained, and why
