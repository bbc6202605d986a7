"""Slow, obvious twins of the state-space kernel: one joint Gaussian, and a filter in plain NumPy."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_discrete_lyapunov


def companion(coefficients, depth):
    lags, r, _ = coefficients.shape
    matrix = np.zeros((depth * r, depth * r))
    for lag in range(lags):
        matrix[:r, lag * r : (lag + 1) * r] = coefficients[lag]
    for row in range(r, depth * r):
        matrix[row, row - r] = 1.0
    return matrix


def joint_states(n_periods, coefficients, intercept, innovation, depth, start=None):
    """Mean (T m,) and covariance (T m, T m) of all states stacked, before any data."""
    r = len(intercept)
    m = depth * r
    F = companion(coefficients, depth)
    noise, drift = np.zeros((m, m)), np.zeros(m)
    noise[:r, :r], drift[:r] = innovation, intercept
    if start is None:
        start = np.linalg.solve(np.eye(m) - F, drift), solve_discrete_lyapunov(F, noise, method="direct")
    means, covariances = [start[0]], [start[1]]
    for _ in range(1, n_periods):
        means.append(F @ means[-1] + drift)
        covariances.append(F @ covariances[-1] @ F.T + noise)
    joint = np.zeros((n_periods * m, n_periods * m))
    for s in range(n_periods):
        block = covariances[s]
        for t in range(s, n_periods):
            joint[t * m : (t + 1) * m, s * m : (s + 1) * m] = block
            joint[s * m : (s + 1) * m, t * m : (t + 1) * m] = block.T
            block = F @ block
    return np.concatenate(means), joint


def condition(mean, covariance, design, noise, data):
    """Law of x ~ N(mean, covariance) given data = design x + N(0, noise), and log p(data)."""
    spread = design @ covariance @ design.T + noise
    error = data - design @ mean
    gain = np.linalg.solve(spread, design @ covariance).T
    logdet = np.linalg.slogdet(spread)[1]
    fit = -0.5 * (len(data) * np.log(2 * np.pi) + logdet + error @ np.linalg.solve(spread, error))
    return mean + gain @ error, covariance - gain @ design @ covariance, fit


def dense(values, loadings, variances, coefficients, intercept, innovation, depth, *, upto=None, start=None):
    """Moments of all states given the observed cells of the first `upto` periods, and their log density."""
    n_periods, d = values.shape
    k, m = loadings.shape[1], depth * len(intercept)
    mean, covariance = joint_states(n_periods, coefficients, intercept, innovation, depth, start)
    rows, data, noise = [], [], []
    for t in range(n_periods if upto is None else upto):
        for j in range(d):
            if np.isfinite(values[t, j]):
                row = np.zeros(n_periods * m)
                row[t * m : t * m + k] = loadings[j]
                rows.append(row)
                data.append(values[t, j])
                noise.append(np.broadcast_to(variances, values.shape)[t, j])
    if not rows:
        return mean, covariance, 0.0
    return condition(mean, covariance, np.array(rows), np.diag(noise), np.array(data))


def plain_filter(linear, precision, law):
    """The compiled forward pass in plain NumPy, with inverses and without shortcuts."""
    r, m = law.transition.shape
    F = np.vstack([law.transition, np.eye(m - r, m)])
    noise, drift = np.zeros((m, m)), np.zeros(m)
    noise[:r, :r], drift[:r] = law.innovation, law.intercept
    a, P = law.start_mean, law.start_covariance
    k = linear.shape[1]
    rows, columns = np.triu_indices(k)
    out = []
    for t in range(len(linear)):
        C, b = np.zeros((m, m)), np.zeros(m)
        C[rows, columns] = C[columns, rows] = precision[t]
        b[:k] = linear[t]
        inner = np.eye(m) + C @ P
        updated = P @ np.linalg.inv(inner)
        mean = a + updated @ (b - C @ a)
        score = b - C @ a
        term = a @ b - a @ C @ a / 2 + score @ updated @ score / 2 - np.linalg.slogdet(inner)[1] / 2
        out.append((a, P, mean, updated, term))
        a, P = F @ mean + drift, F @ updated @ F.T + noise
    return tuple(np.array(part) for part in zip(*out, strict=True))


def plain_smoother(law, mean, covariance):
    """Rauch-Tung-Striebel in plain NumPy: mean, covariance, Cov(f_t, s_(t-1))."""
    r, m = law.transition.shape
    F = np.vstack([law.transition, np.eye(m - r, m)])
    noise, drift = np.zeros((m, m)), np.zeros(m)
    noise[:r, :r], drift[:r] = law.innovation, law.intercept
    smoothed, spread, lagged = mean.copy(), covariance.copy(), np.zeros((len(mean), r, m))
    for t in range(len(mean) - 2, -1, -1):
        predicted = F @ covariance[t] @ F.T + noise
        gain = covariance[t] @ F.T @ np.linalg.pinv(predicted, rcond=1e-13, hermitian=True)
        smoothed[t] = mean[t] + gain @ (smoothed[t + 1] - F @ mean[t] - drift)
        spread[t] = covariance[t] + gain @ (spread[t + 1] - predicted) @ gain.T
        lagged[t + 1] = (spread[t + 1] @ gain.T)[:r]
    return smoothed, spread, lagged
