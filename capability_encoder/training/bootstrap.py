"""Paired bootstrap over prompts: one set of draws for all methods, near-duplicates together, stratified by data set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from capability_encoder.training.report_schema import Interval

Float64Array = npt.NDArray[np.float64]
_LEVELS = (0.025, 0.975)
#: Draws whose weights are multiplied at once; bounds memory.
_BLOCK = 500


class Resampler:
    """Weights of prompts under `draws` resamples; every statistic read from it is paired with every other.

    Groups (near-duplicates) are drawn with replacement within each stratum, as many as the stratum has.
    """

    def __init__(
        self, groups: npt.NDArray[np.str_], strata: npt.NDArray[np.str_], *, draws: int = 10_000, seed: int = 0
    ) -> None:
        """Args: groups, strata: `[N]` labels; a group that spans strata counts once in each."""
        joined = np.char.add(np.char.add(strata.astype(str), "\t"), groups.astype(str))
        _, first, self._member = np.unique(joined, return_index=True, return_inverse=True)
        self.draws = draws
        stratum = strata[first]
        self._weights = np.zeros((draws, len(first)), dtype=np.uint8)
        rng = np.random.default_rng(seed)
        for name in np.unique(stratum):
            places = np.flatnonzero(stratum == name)
            even = np.full(len(places), 1.0 / len(places))
            for start in range(0, draws, _BLOCK):
                stop = min(start + _BLOCK, draws)
                self._weights[start:stop, places] = rng.multinomial(len(places), even, size=stop - start)

    def means(self, values: npt.ArrayLike) -> Float64Array:
        """Resampled means `[draws, K]` of columns `[N, K]`; NaN cells are left out of their column's mean."""
        table = np.atleast_2d(np.asarray(values, dtype=np.float64).T).T
        sums, counts = self.sums(np.nan_to_num(table)), self.sums((~np.isnan(table)).astype(np.float64))
        return sums / np.maximum(counts, 1e-12)

    def sums(self, values: Float64Array) -> Float64Array:
        """Resampled sums `[draws, K]` of columns `[N, K]` without NaN."""
        grouped = np.zeros((self._weights.shape[1], values.shape[1]))
        np.add.at(grouped, self._member, values)
        blocks = [
            self._weights[start : start + _BLOCK].astype(np.float64) @ grouped for start in range(0, self.draws, _BLOCK)
        ]
        return np.concatenate(blocks)


def interval(estimate: float, drawn: npt.ArrayLike, *, digits: int = 4) -> Interval:
    """The estimate with the 95 % percentile interval of its resampled values `[draws]`."""
    low, high = np.quantile(np.asarray(drawn, dtype=np.float64), _LEVELS)
    return Interval(
        estimate=round(float(estimate), digits), low=round(float(low), digits), high=round(float(high), digits)
    )


def mean_interval(resampler: Resampler, values: npt.ArrayLike, *, scale: float = 1.0) -> Interval:
    """Mean of one value per prompt `[N]` (NaN left out), times `scale`, with its interval."""
    table = np.asarray(values, dtype=np.float64)
    return interval(scale * float(np.nanmean(table)), scale * resampler.means(table)[:, 0])


def cell_mean_interval(resampler: Resampler, cells: Float64Array, *, digits: int = 4) -> Interval:
    """Mean over all cells `[N, M]` that are not NaN, whoever of the M they belong to, with its interval."""
    known = ~np.isnan(cells)
    table = np.stack([np.nan_to_num(cells).sum(axis=1), known.sum(axis=1).astype(np.float64)], axis=1)
    sums = resampler.sums(table)
    return interval(float(np.nanmean(cells)), sums[:, 0] / np.maximum(sums[:, 1], 1e-12), digits=digits)


def pool_mean_interval(resampler: Resampler, columns: Float64Array, *, scale: float = 1.0) -> Interval:
    """Mean over pools of each pool's mean: `[N, pools]`, NaN where a prompt is not in a pool."""
    return interval(scale * float(np.nanmean(columns, axis=0).mean()), scale * resampler.means(columns).mean(axis=1))


def two_way_interval(resampler: Resampler, errors: Float64Array, *, seed: int) -> Interval:
    """Mean error over prompts and models `[N, M]`, both resampled: for claims about models not seen yet."""
    per_model = resampler.means(errors)
    count = errors.shape[1]
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), size=resampler.draws) / count
    return interval(float(np.nanmean(errors, axis=0).mean()), (weights * per_model).sum(axis=1), digits=5)
