"""The dynamic factor model as one big Gaussian: slow, obvious, and independent of the kernels."""

import numpy as np


def path_covariance(transition, innovation, T, size=None):
    """Covariance (T r, T r) of a stationary VAR whose shocks after the start are size[t] times as large."""
    p, r = transition.shape[:2]
    companion = np.zeros((p * r, p * r))
    companion[:r] = np.concatenate(list(transition), axis=1)
    companion[r:, :-r] = np.eye((p - 1) * r)
    noise = np.zeros_like(companion)
    noise[:r, :r] = innovation
    m = p * r
    start = np.linalg.solve(np.eye(m**2) - np.kron(companion, companion), noise.ravel())
    start = start.reshape(p, r, p, r)[::-1, :, ::-1].reshape(m, m)
    shocks = np.zeros((T * r, T * r))
    shocks[:m, :m] = start
    system = np.eye(T * r)
    for t in range(p, T):
        here = slice(t * r, (t + 1) * r)
        shocks[here, here] = innovation * (1.0 if size is None else size[t] ** 2)
        for lag in range(p):
            system[here, (t - 1 - lag) * r : (t - lag) * r] = -transition[lag]
    root = np.linalg.inv(system)
    return root @ shocks @ root.T


def dense_dfm(values, parameters, *, weights=None, lead=0, size=None):
    """Log-likelihood, smoothed mean and covariance of factors (T + lead, r) by brute force.

    parameters has loadings, persistence, variance, transition, innovation; weights (n, L) newest first; size
    (T + lead,) of all shocks by period.
    """
    n_data, n = values.shape
    T = n_data + lead
    L, phi, s = parameters.loadings, parameters.persistence, parameters.variance
    r = L.shape[1]
    F = path_covariance(parameters.transition, parameters.innovation, T, size)
    own = [path_covariance(phi[i].reshape(1, 1, 1), s[i].reshape(1, 1), T, size) for i in range(n)]
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
                E[a, b] = w @ own[i] @ v
    S = H @ F @ H.T + E
    y = np.array(seen)
    loglik = -0.5 * (y @ np.linalg.solve(S, y) + np.linalg.slogdet(S)[1] + y.size * np.log(2 * np.pi))
    K = F @ H.T
    mean = (K @ np.linalg.solve(S, y)).reshape(T, r)
    covariance = (F - K @ np.linalg.solve(S, K.T)).reshape(T, r, T, r)
    return loglik, mean, covariance


def dense_covariance(cells, n_data, parameters, *, weights, lead=0, size=None):
    """Covariance of cells (period, series) before anything is observed."""
    T = n_data + lead
    L, phi, s = parameters.loadings, parameters.persistence, parameters.variance
    F = path_covariance(parameters.transition, parameters.innovation, T, size)
    own = [path_covariance(phi[i].reshape(1, 1, 1), s[i].reshape(1, 1), T, size) for i in range(len(L))]
    maps = []
    for t, i in cells:
        w = np.zeros(T)
        for lag, weight in enumerate(weights[i]):
            # a cell before the first period's lags has no such law; nobody asks for one
            if weight:
                w[t + lead - lag] = weight
        maps.append((i, w))
    out = np.zeros((len(cells), len(cells)))
    for a, (i, w) in enumerate(maps):
        for b, (j, v) in enumerate(maps):
            out[a, b] = np.kron(w, L[i]) @ F @ np.kron(v, L[j])
            if i == j:
                out[a, b] += w @ own[i] @ v
    return out
