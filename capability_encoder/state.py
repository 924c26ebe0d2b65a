"""All that the trained scorer knows, as one value: written to and read from an artefact, or handed over in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from capability_encoder.compact import from_bytes, to_bytes
from capability_encoder.familiarity import Familiarity
from capability_encoder.features import EaseHead, FeatureMap, Heads
from capability_encoder.own_heads import OwnHeads
from capability_encoder.population import Population
from capability_encoder.posterior import Float64Array, Gaussian
from capability_encoder.views import GramProjection

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]


class Items(NamedTuple):
    """Known prompts as aptitude items.

    Attributes:
        ids: N prompt ids.  categories: N labels.
        coordinates: `[N, 1 + R]` difficulty and directions.
        offset, variance: `[N]` calibrated ease beyond the text, and what is left unknown of it.
        slope: `[N]` how sharply an item tells models apart, 1 for ordinary prompts.
        answered: `[N, M]` packed bits by row: known model m was fitted on item n.
    """

    ids: tuple[str, ...]
    categories: tuple[str, ...]
    coordinates: FloatArray
    offset: FloatArray
    variance: FloatArray
    slope: FloatArray
    answered: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Numbers chosen on dev after the fit.

    Attributes:
        slope, intercept: of the final logit.
        centre: expected ease of a prompt of an unknown kind, that of the aptitude items; centre_variance: of the levels
            of such kinds around it.
        item_variance: variance of ease that the text cannot tell.
        direction_doubt, ease_doubt: `Familiarity.ratios` up to which directions and ease are trusted fully, and from
            which the prompt counts as of an unknown kind. Directions are doubted early, for a wrong one costs a worse
            choice and a missing one only the gain; ease late, since odd prompts of known kinds keep their kind's level.
        novel: ratio from which a prompt is unlike anything known.
        difficulty_trust, direction_trust: share of the prediction kept for prompts of an unknown kind.
        known_share: share of a known model's directions that counts beside its own head.
        interval_scale, interval_floor: of the standard error of a logit (posterior part scaled, floor added).
    """

    slope: float = 1.0
    intercept: float = 0.0
    centre: float = 0.0
    centre_variance: float = 1.5
    item_variance: float = 1.2
    direction_doubt: tuple[float, float] = (0.88, 0.97)
    ease_doubt: tuple[float, float] = (0.98, 1.06)
    novel: float = 1.4
    difficulty_trust: float = 0.0
    direction_trust: float = 0.0
    known_share: float = 0.5
    interval_scale: float = 0.6
    interval_floor: float = 0.2


@dataclass(frozen=True, slots=True)
class ScorerState:
    """The trained scorer.

    Attributes:
        known: names of the models fitted on; `weights` is the posterior of each.
        familiarity: which kinds of prompts it was fitted on.
        memory: `[N, Q]` int8 unit vectors (times 127) of the items, in the space of `memory_projection` `[E, Q]`.
    """

    grams: GramProjection
    feature_map: FeatureMap
    heads: Heads
    population: Population
    known: tuple[str, ...]
    weights: tuple[Gaussian, ...]
    items: Items
    familiarity: Familiarity
    memory_projection: FloatArray
    memory: npt.NDArray[np.int8]
    calibration: Calibration

    @property
    def width(self) -> int:
        """Weights per model: ability, slope on difficulty, one per direction."""
        return 2 + len(self.heads.direction_bias)


def remember(embedding: FloatArray, projection: FloatArray) -> FloatArray:
    """Unit vectors `[B, Q]` in the memory's space; zero for a zero embedding."""
    projected = embedding @ projection
    norms = np.sqrt((projected * projected).sum(axis=-1, keepdims=True))
    return np.asarray(projected / np.where(norms > 0, norms, 1.0), dtype=np.float32)


def to_arrays(state: ScorerState) -> tuple[dict[str, Arrays], dict[str, Any]]:
    """Array groups and JSON records of a state, for `write_artifact`."""
    feature_map, heads, items = state.feature_map, state.heads, state.items
    groups: dict[str, Arrays] = {
        "grams": {"idf": state.grams.idf, "table": state.grams.table, "scale": state.grams.scale},
        "features": {
            "mean": feature_map.mean,
            "scale": feature_map.scale,
            "waves": feature_map.waves,
            "phases": feature_map.phases,
            "wave_mean": feature_map.wave_mean,
            "ease_linear": heads.ease.linear,
            **_compact("ease_projection", heads.ease.projection),
            **_compact("ease_landmarks", heads.ease.landmarks),
            "ease_near": heads.ease.near,
            "head_topics": heads.topics,
            "head_topics_bias": heads.topics_bias,
            "columns": heads.columns,
            "landmarks": heads.landmarks.astype(np.float16),
            "head_near": heads.near,
            "head_topical": heads.topical,
            "direction_bias": heads.direction_bias,
            **_compact("own_near", heads.own.near),
            "own_topical": heads.own.topical,
            "own_bias": heads.own.bias,
        },
        "models": {
            "effects": state.population.effects,
            "covariance": state.population.covariance,
            "means": np.stack([gaussian.mean for gaussian in state.weights]),
            "covariances": np.stack([gaussian.covariance for gaussian in state.weights]).astype(np.float32),
        },
        "items": {
            "coordinates": items.coordinates.astype(np.float16),
            "offset": items.offset.astype(np.float16),
            "variance": items.variance.astype(np.float16),
            "slope": items.slope.astype(np.float16),
            "answered": items.answered,
        },
        "kinds": {each.name: getattr(state.familiarity, each.name) for each in fields(Familiarity) if each.init},
        "memory": {"vectors": state.memory, "projection": state.memory_projection.astype(np.float16)},
    }
    categories = sorted(set(items.categories))
    place = {name: number for number, name in enumerate(categories)}
    record = {
        "known": list(state.known),
        "items": list(items.ids),
        "categories": categories,
        "item_category": [place[name] for name in items.categories],
        "structure": list(feature_map.structure),
        "wave_weight": feature_map.wave_weight,
        "ease_bias": heads.ease.bias,
        "width": heads.width,
        "calibration": {name: getattr(state.calibration, name) for name in Calibration.__slots__},
    }
    return groups, {"scorer": record}


def from_arrays(groups: Mapping[str, Arrays], record: Mapping[str, Any]) -> ScorerState:
    """The state that `to_arrays` took apart (coordinates, covariances and the projection in reduced precision)."""
    features, models, items, memory = groups["features"], groups["models"], groups["items"], groups["memory"]
    categories = record["categories"]
    return ScorerState(
        grams=GramProjection(**groups["grams"]),
        feature_map=FeatureMap(
            mean=features["mean"],
            scale=features["scale"],
            structure=(int(record["structure"][0]), int(record["structure"][1])),
            waves=features["waves"],
            phases=features["phases"],
            wave_mean=features["wave_mean"],
            wave_weight=float(record["wave_weight"]),
        ),
        heads=Heads(
            ease=EaseHead(
                linear=features["ease_linear"],
                projection=_expanded("ease_projection", features),
                landmarks=_expanded("ease_landmarks", features),
                near=features["ease_near"],
                bias=float(record["ease_bias"]),
            ),
            topics=features["head_topics"],
            topics_bias=features["head_topics_bias"],
            columns=features["columns"],
            width=float(record["width"]),
            landmarks=features["landmarks"].astype(np.float32),
            near=features["head_near"],
            topical=features["head_topical"],
            direction_bias=features["direction_bias"],
            own=OwnHeads(_expanded("own_near", features), features["own_topical"], features["own_bias"]),
        ),
        population=Population(models["effects"], models["covariance"]),
        known=tuple(record["known"]),
        weights=tuple(
            Gaussian(mean, covariance.astype(np.float64))
            for mean, covariance in zip(models["means"], models["covariances"], strict=True)
        ),
        items=Items(
            ids=tuple(record["items"]),
            categories=tuple(categories[number] for number in record["item_category"]),
            coordinates=items["coordinates"].astype(np.float32),
            offset=items["offset"].astype(np.float32),
            variance=items["variance"].astype(np.float32),
            slope=items["slope"].astype(np.float32),
            answered=items["answered"],
        ),
        familiarity=Familiarity(**groups["kinds"]),
        memory_projection=memory["projection"].astype(np.float32),
        memory=memory["vectors"],
        calibration=_calibration(record["calibration"]),
    )


def _compact(name: str, table: FloatArray) -> Arrays:
    """A table in bytes, with its scales beside it."""
    values, scale = to_bytes(table)
    return {name: values, f"{name}_scale": scale}


def _expanded(name: str, arrays: Arrays) -> FloatArray:
    return from_bytes(arrays[name], arrays[f"{name}_scale"])


def _calibration(record: Mapping[str, Any]) -> Calibration:
    """JSON has no tuples."""
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    return Calibration(**values)


def design_of(coordinates: FloatArray) -> Float64Array:
    """Rows `(1, difficulty, directions)` of coordinates `[N, 1 + R]`."""
    return np.column_stack([np.ones(len(coordinates)), coordinates.astype(np.float64)])
