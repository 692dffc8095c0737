"""A surrogate model that predicts the accuracy of untrained candidates from trained ones.

It is a Gaussian process over the logarithms of kept shares, the scale on which the search scales
and mutates (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 2 and
5). The kernel is the sum of a linear and a squared-exponential term. Their proportion, the length
scale and the noise are chosen from a fixed grid by marginal likelihood, so that equal data give an
equal surrogate.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

Floats = NDArray[np.float64]

_SMOOTH = (0.5, 1.0, 2.0, 4.0)  # length scales, in units of the median distance between inputs
_LINES = (0.0, 0.5, 0.9)  # share of the linear term in the kernel
_NOISES = (0.01, 0.03, 0.1, 0.3)  # noise variances, in units of the kernel's variance
_MOST_COMPARED = 200  # largest number of rows that the grid search uses


@dataclass(frozen=True)
class Surrogate:
    """Predicts the mean and the standard deviation of the accuracy, without noise.

    Attributes:
        inputs: Centred inputs of the fit, shape (n, features).
        residuals: Fitted values less their mean, shape (n,).
        centre: Mean of the inputs, shape (features,).
        offset: Mean of the fitted values.
        kernel: Length scale (in units of the features) and share of the linear term.
        noise: Variance of the noise, in units of the kernel's.
        variance: Variance of the kernel.
        slope: Mean squared norm of the centred inputs, which normalises the linear term.
        factor: Lower Cholesky factor of the noisy kernel matrix, shape (n, n).
        weights: Weights of the kernel values in a predicted mean, shape (n,).
    """

    inputs: Floats
    residuals: Floats
    centre: Floats
    offset: float
    kernel: tuple[float, float]
    noise: float
    variance: float
    slope: float
    factor: Floats
    weights: Floats

    @classmethod
    def fit(cls, inputs: Floats, values: Floats) -> "Surrogate":
        """Fit to inputs (n, features) and values (n,), with at least two rows."""
        centre, offset = inputs.mean(axis=0), float(values.mean())
        centred, residuals = inputs - centre, values - offset
        slope = max(float(np.mean(np.sum(centred**2, axis=1))), 1e-12)
        # Choose the kernel on a subset: each of its combinations costs a Cholesky factorisation.
        some = np.linspace(0, len(inputs) - 1, min(len(inputs), _MOST_COMPARED)).astype(np.int64)
        distances = _squared_distances(centred[some], centred[some])
        apart = distances[distances > 0]
        unit = float(np.sqrt(np.median(apart))) if len(apart) else 1.0
        best = (-np.inf, (unit, 0.5), _NOISES[-1])
        straight = centred[some] @ centred[some].T / slope
        for smooth in _SMOOTH:
            length = smooth * unit
            bent = np.exp(-distances / (2 * length**2))
            for line, noise in product(_LINES, _NOISES):
                matrix = line * straight + (1 - line) * bent
                found = (_likelihood(matrix, noise, residuals[some]), (length, line), noise)
                best = max(best, found, key=lambda one: one[0])
        _, kernel, noise = best
        factor, weights = _solved(centred, residuals, kernel, slope, noise)
        variance = max(float(residuals @ weights) / len(residuals), 1e-12)
        return cls(
            centred, residuals, centre, offset, kernel, noise, variance, slope, factor, weights
        )

    def believing(self, inputs: Floats, values: Floats) -> "Surrogate":
        """Return this surrogate with further rows, and the kernel and the variance as they are.

        Args:
            inputs: Inputs of the rows, shape (m, features).
            values: Their values, shape (m,).
        """
        rows = np.concatenate([self.inputs, inputs - self.centre])
        residuals = np.concatenate([self.residuals, values - self.offset])
        factor, weights = _solved(rows, residuals, self.kernel, self.slope, self.noise)
        return replace(self, inputs=rows, residuals=residuals, factor=factor, weights=weights)

    def predict(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Return the mean and standard deviation, both (m,), for inputs (m, features)."""
        centred = inputs - self.centre
        cross = _kernel(centred, self.inputs, self.kernel, self.slope)
        means = self.offset + cross @ self.weights
        # Posterior variance: the prior's, less what the fitted inputs explain.
        explained = solve_triangular(self.factor, cross.T, lower=True)
        _, line = self.kernel
        prior = (1 - line) + line * np.sum(centred**2, axis=1) / self.slope
        left = np.maximum(prior - np.sum(explained**2, axis=0), 1e-12)
        return means, np.sqrt(self.variance * left)


def _solved(
    inputs: Floats, residuals: Floats, kernel: tuple[float, float], slope: float, noise: float
) -> tuple[Floats, Floats]:
    """Return the Cholesky factor of the noisy kernel matrix, and the weights of the rows."""
    matrix = _kernel(inputs, inputs, kernel, slope)
    matrix[np.diag_indices_from(matrix)] += noise
    factor, _ = cho_factor(matrix, lower=True)
    return np.tril(factor), cho_solve((factor, True), residuals)


def _kernel(first: Floats, second: Floats, kernel: tuple[float, float], slope: float) -> Floats:
    length, line = kernel
    bend = np.exp(-_squared_distances(first, second) / (2 * length**2))
    both: Floats = line * (first @ second.T) / slope + (1 - line) * bend
    return both


def _squared_distances(first: Floats, second: Floats) -> Floats:
    squares = np.sum(first**2, axis=1)[:, None] + np.sum(second**2, axis=1)[None]
    distances: Floats = np.maximum(squares - 2 * first @ second.T, 0.0)
    return distances


def _likelihood(matrix: Floats, noise: float, residuals: Floats) -> float:
    """Log marginal likelihood up to a constant, with the kernel's variance chosen optimally.

    The matrix is overwritten.
    """
    matrix[np.diag_indices_from(matrix)] += noise
    factor, _ = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
    variance = max(float(residuals @ cho_solve((factor, True), residuals)) / len(residuals), 1e-12)
    return float(-0.5 * len(residuals) * np.log(variance) - np.sum(np.log(np.diag(factor))))
