"""The dynamic factor model as one big Gaussian: slow, obvious, and independent of the kernels."""

import numpy as np


def dense_dfm(values, parameters, *, weights=None, lead=0):
    """Log-likelihood, smoothed mean and covariance of factors (T + lead, r) by brute force.

    parameters has loadings, persistence, variance, transition, innovation; weights (n, L) newest first.
    """
    n_data, n = values.shape
    T = n_data + lead
    L, phi, s = parameters.loadings, parameters.persistence, parameters.variance
    p, r = parameters.transition.shape[:2]
    # autocovariances of f from a long moving average
    companion = np.zeros((p * r, p * r))
    companion[:r] = np.concatenate(list(parameters.transition), axis=1)
    companion[r:, :-r] = np.eye((p - 1) * r)
    noise = np.zeros_like(companion)
    noise[:r, :r] = parameters.innovation
    size = p * r
    stationary = np.linalg.solve(np.eye(size**2) - np.kron(companion, companion), noise.ravel()).reshape(
        size, size
    )
    gamma, power = [], np.eye(size)
    for _ in range(T):
        gamma.append((power @ stationary)[:r, :r])
        power = companion @ power
    F = np.zeros((T * r, T * r))
    for t in range(T):
        for u in range(t + 1):
            F[t * r : (t + 1) * r, u * r : (u + 1) * r] = gamma[t - u]
            F[u * r : (u + 1) * r, t * r : (t + 1) * r] = gamma[t - u].T
    distance = np.abs(np.subtract.outer(np.arange(T), np.arange(T)))
    weights = np.eye(1).repeat(n, axis=0) if weights is None else weights
    rows, maps, seen = [], [], []
    for i in range(n):
        for t in np.flatnonzero(np.isfinite(values[:, i])):
            w = np.zeros(T)
            for lag, weight in enumerate(weights[i]):
                if weight:
                    w[t + lead - lag] = weight
            rows.append((i, w))
            maps.append(np.kron(w, L[i]))
            seen.append(values[t, i])
    H = np.array(maps)
    E = np.zeros((len(rows), len(rows)))
    for a, (i, w) in enumerate(rows):
        for b, (j, v) in enumerate(rows):
            if i == j:
                E[a, b] = w @ (s[i] * phi[i] ** distance / (1 - phi[i] ** 2)) @ v
    S = H @ F @ H.T + E
    y = np.array(seen)
    loglik = -0.5 * (y @ np.linalg.solve(S, y) + np.linalg.slogdet(S)[1] + y.size * np.log(2 * np.pi))
    K = F @ H.T
    mean = (K @ np.linalg.solve(S, y)).reshape(T, r)
    covariance = (F - K @ np.linalg.solve(S, K.T)).reshape(T, r, T, r)
    return loglik, mean, covariance


def dense_covariance(cells, n_data, parameters, *, weights, lead=0):
    """Covariance of cells (period, series) before anything is observed."""
    T = n_data + lead
    L, phi, s = parameters.loadings, parameters.persistence, parameters.variance
    p, r = parameters.transition.shape[:2]
    companion = np.zeros((p * r, p * r))
    companion[:r] = np.concatenate(list(parameters.transition), axis=1)
    companion[r:, :-r] = np.eye((p - 1) * r)
    noise = np.zeros_like(companion)
    noise[:r, :r] = parameters.innovation
    stationary = np.linalg.solve(np.eye((p * r) ** 2) - np.kron(companion, companion), noise.ravel()).reshape(
        p * r, p * r
    )
    gamma, power = np.zeros((T, r, r)), np.eye(p * r)
    for k in range(T):
        gamma[k] = (power @ stationary)[:r, :r]
        power = companion @ power
    out = np.zeros((len(cells), len(cells)))
    for a, (t, i) in enumerate(cells):
        for b, (u, j) in enumerate(cells):
            for lag, w in enumerate(weights[i]):
                for other, v in enumerate(weights[j]):
                    if not w or not v:
                        continue
                    distance = (t - lag) - (u - other)
                    common = gamma[distance] if distance >= 0 else gamma[-distance].T
                    out[a, b] += w * v * (L[i] @ common @ L[j])
                    if i == j:
                        out[a, b] += w * v * s[i] * phi[i] ** abs(distance) / (1 - phi[i] ** 2)
    return out
