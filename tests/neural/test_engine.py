"""Buckets, batches, the primitive, the network and alignment, each against a slow and obvious twin."""

from __future__ import annotations

import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latentfactors import CAEConfig, CAEModel, TrainingConfig
from latentfactors.errors import (
    ConfigurationError,
    InsufficientDataError,
    MissingCapabilityError,
    TrainingError,
)
from latentfactors.neural import require_deep
from latentfactors.neural.alignment import align_members, living_members, principal_turn
from latentfactors.neural.batch_norm import batch_forward, batch_hidden, normalised
from latentfactors.neural.batches import bucket, padded_order, period_batches, row_batches
from latentfactors.neural.config import OptimiserSpec
from latentfactors.neural.ensemble import remembered
from latentfactors.neural.perceptron import activate, forward, fresh_layers, fresh_parameters
from latentfactors.neural.primitive import Ensemble, GradientStep, Objective, train
from latentfactors.neural.rows import input_sums
from latentfactors.simulate import characteristic_panel


@pytest.fixture(scope="module")
def compilations():
    """How often XLA has compiled so far."""
    seen = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: seen.append(name) if name.endswith("backend_compile_duration") else None
    )
    return lambda: len(seen)


# ------------------------------------------------------------------------ batches


def test_buckets_are_few_and_hold_what_they_must():
    for per_octave in (1, 4, 8):
        sizes = [bucket(n, per_octave) for n in range(1, 5000)]
        assert all(size >= n for n, size in enumerate(sizes, 1))
        assert sizes == sorted(sizes)
        assert all(size <= n * (1 + 1 / per_octave) + 1 for n, size in enumerate(sizes, 1) if n >= 8)
        assert len(set(sizes)) <= 13 * per_octave


@pytest.fixture(scope="module")
def ragged():
    rng = np.random.default_rng(0)
    counts = np.array([3, 7, 1, 5, 40, 2, 9])
    offsets = np.concatenate([[0], np.cumsum(counts)])
    rows = {"z": rng.normal(size=(offsets[-1], 4)).astype(np.float32)}
    return rows, {"x": rng.normal(size=(7, 2)).astype(np.float32)}, offsets


def test_period_batches_cut_the_rows_of_their_periods(ragged):
    rows, periods, offsets = ragged
    batches, n_steps = period_batches(rows, periods, offsets, 3)
    assert n_steps == 3
    order = np.array([4, 0, 6, 2, 5, 1, 3])
    empty = int(batches.starts.shape[0]) - 1
    batches = eqx.tree_at(lambda b: b.order, batches, padded_order(order, 3, empty))
    seen = []
    for i in range(n_steps):
        batch = batches.at(jnp.int32(i))
        for place in range(3):
            own = np.asarray(batch.mask[place]) > 0
            position = 3 * i + place
            if position >= 7:
                assert not own.any()
                continue
            p = order[position]
            seen.append(p)
            assert np.array_equal(
                np.asarray(batch.rows["z"][place])[own], rows["z"][offsets[p] : offsets[p + 1]]
            )
            assert np.array_equal(np.asarray(batch.periods["x"][place]), periods["x"][p])
    assert seen == order.tolist()


def test_row_batches_visit_every_row_once_with_its_period(ragged):
    rows, periods, offsets = ragged
    batches, n_steps = row_batches(rows, periods, offsets, 16)
    n_rows = int(offsets[-1])
    order = np.random.default_rng(1).permutation(n_rows)
    batches = eqx.tree_at(lambda b: b.order, batches, padded_order(order, 16, -1))
    code, visited = np.repeat(np.arange(7), np.diff(offsets)), []
    for i in range(n_steps):
        batch = batches.at(jnp.int32(i))
        own = np.asarray(batch.mask[:, 0]) > 0
        here = order[16 * i : 16 * i + 16]
        assert own.sum() == here.size
        assert np.array_equal(np.asarray(batch.rows["z"])[own, 0], rows["z"][here])
        assert np.array_equal(np.asarray(batch.periods["x"])[own], periods["x"][code[here]])
        visited += here.tolist()
    assert sorted(visited) == list(range(n_rows))


# ------------------------------------------------------------------------ the primitive


class Numbers(eqx.Module):
    values: jax.Array

    def at(self, i):
        return self.values[i]


class Recursion(eqx.Module):
    """x <- rho x + v, with something that is no array in the carry."""

    rho: float = eqx.field(static=True)

    def __call__(self, carry, value, key):
        x, name = carry
        new = self.rho * x + value
        return (new, name), new


@pytest.mark.parametrize("n_steps", [1, 5, 16, 17])
def test_the_scan_is_the_loop(n_steps):
    values = np.random.default_rng(2).normal(size=40).astype(np.float32)
    (x, name), path = train(
        (jnp.float32(1.0), "label"), Recursion(0.5), Numbers(jnp.asarray(values)), n_steps, jax.random.key(0)
    )
    expected, state = [], np.float32(1.0)
    for value in values[:n_steps]:
        state = np.float32(0.5) * state + value
        expected.append(state)
    assert name == "label"
    assert path.shape == (n_steps,)
    np.testing.assert_allclose(np.asarray(path), expected, rtol=1e-6)
    assert float(x) == pytest.approx(expected[-1], rel=1e-6)


def test_more_steps_of_an_equal_step_do_not_compile_again(compilations):
    data, key = Numbers(jnp.zeros(64)), jax.random.key(0)

    def run(n_steps):
        train((jnp.float32(1.0), "label"), Recursion(0.25), data, n_steps, key)[0][0].block_until_ready()

    run(20)
    before = compilations()
    for n_steps in (20, 21, 27, 32):
        run(n_steps)
    assert compilations() == before


class Quadratic(Objective):
    """(w - batch)'(w - batch), NaN where the batch says so."""

    def loss(self, parameters, layers, batch, key):
        error = parameters["w"] - batch
        return jnp.vdot(error, error), layers


@pytest.mark.parametrize("axis", ["vmap", "map"])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_steps_are_those_of_adam(axis, clip):
    rng = np.random.default_rng(3)
    targets, w = rng.normal(size=(12, 3)), rng.normal(size=(2, 3))
    step = GradientStep(Quadratic(), OptimiserSpec(decay=0.1, clip=clip))
    learner = jax.vmap(step.start)({"w": jnp.asarray(w, jnp.float32)}, {})
    learner = learner._replace(rate=jnp.full(2, 0.05, jnp.float32), active=jnp.array([True, False]))
    data = Numbers(jnp.asarray(targets, jnp.float32))
    found, report = train(learner, Ensemble(step, axis), data, 12, jax.random.key(0))

    x, m, v = w[0].copy(), np.zeros(3), np.zeros(3)
    for t, target in enumerate(targets, 1):
        gradient = 2 * (x - target)
        if clip is not None:
            gradient *= min(1.0, clip / np.linalg.norm(gradient))
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        x -= 0.05 * ((m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + 0.1 * x)
    np.testing.assert_allclose(np.asarray(found.parameters["w"])[0], x, rtol=2e-5)
    assert np.array_equal(np.asarray(found.parameters["w"])[1], w[1].astype(np.float32))
    assert np.asarray(report.finite).all()


def test_a_step_that_is_not_finite_moves_nothing_and_says_so():
    step = GradientStep(Quadratic(), OptimiserSpec(decay=0.0, clip=None))
    learner = jax.vmap(step.start)({"w": jnp.ones((1, 3))}, {})._replace(rate=jnp.full(1, 0.1))
    data = Numbers(jnp.asarray([[0.0, 0.0, 0.0], [np.nan, 0.0, 0.0], [0.0, 0.0, 0.0]], jnp.float32))
    found, report = train(learner, Ensemble(step, "vmap"), data, 3, jax.random.key(0))
    assert np.asarray(report.finite)[:, 0].tolist() == [True, False, True]
    assert np.isfinite(np.asarray(found.parameters["w"])).all()


# ------------------------------------------------------------------------ the network


def dense_network(z, parameters, moments):
    """The formula of the docstring, unit by unit."""
    h = z
    for j, (mean, variance) in enumerate(moments):
        u = h @ parameters[f"weight_{j}"]
        u = parameters[f"gain_{j}"] * (u - mean) / np.sqrt(variance + 1e-5) + parameters[f"bias_{j}"]
        h = np.maximum(u, 0.0)
    last = len(moments)
    return h @ parameters[f"weight_{last}"] + parameters[f"bias_{last}"]


def moved_network(rng, sizes):
    """Parameters away from their start, where gains are 1 and biases 0; and fresh layers."""
    parameters = {
        name: a + 0.1 * rng.normal(size=a.shape).astype(np.float32)
        for name, a in fresh_parameters(rng, sizes, batch_norm=True).items()
    }
    return parameters, fresh_layers(sizes, batch_norm=True)


def test_both_readings_of_the_network_are_the_formula():
    rng = np.random.default_rng(4)
    parameters, layers = moved_network(rng, (5, 8, 6, 3))
    z, mask = rng.normal(size=(40, 5)).astype(np.float32), (np.arange(40) < 30).astype(np.float32)
    moments, h = [], z[:30].astype(np.float64)
    for j in range(2):
        u = h @ parameters[f"weight_{j}"]
        moments.append((u.mean(axis=0), u.var(axis=0)))
        h = np.maximum(
            parameters[f"gain_{j}"] * (u - u.mean(axis=0)) / np.sqrt(u.var(axis=0) + 1e-5)
            + parameters[f"bias_{j}"],
            0.0,
        )
    out, new = batch_forward(jnp.asarray(z), jnp.asarray(mask), parameters, layers)
    np.testing.assert_allclose(
        np.asarray(out).T[:30], dense_network(z[:30], parameters, moments), rtol=2e-4, atol=2e-5
    )
    # one batch: the running moments, freed of their start at zero, are the batch's
    new = {name: np.asarray(a, dtype=np.float64) for name, a in new.items()}
    exact = {name: a.astype(np.float64) for name, a in parameters.items()}
    np.testing.assert_allclose(
        forward(z.astype(np.float64), exact, new), dense_network(z, exact, moments), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_backward_pass_of_batch_norm_is_the_derivative(activation):
    rng = np.random.default_rng(11)
    u = jnp.asarray(rng.normal(size=(4, 30)) * [[1.0], [3.0], [0.2], [1.0]] + 0.5, dtype=jnp.float32)
    gain, bias = (jnp.asarray(rng.normal(size=4), dtype=jnp.float32) for _ in range(2))
    mask = jnp.asarray(np.arange(30) < 24, dtype=jnp.float32)
    target = jnp.asarray(rng.normal(size=(4, 30)), dtype=jnp.float32)

    def plain(u, gain, bias, share):
        mean = u @ share
        variance = ((u - mean[:, None]) ** 2) @ share
        x = (u - mean[:, None]) / jnp.sqrt(variance + 1e-5)[:, None]
        return activate(gain[:, None] * x + bias[:, None], activation)

    def loss(layer):
        return lambda u, gain, bias: jnp.vdot(target * mask, layer(u, gain, bias, mask / mask.sum()) ** 2)

    ours = loss(lambda *args: normalised(*args, activation)[0])
    with jax.default_matmul_precision("float32"):
        expected = jax.grad(loss(plain), argnums=(0, 1, 2))(u, gain, bias)
        for found in (
            jax.grad(ours, argnums=(0, 1, 2))(u, gain, bias),
            # under vmap, as members of an ensemble run
            jax.tree.map(
                lambda leaf: leaf[1],
                jax.vmap(jax.grad(ours, argnums=(0, 1, 2)))(
                    *(jnp.stack([0 * a, a]) for a in (u, gain, bias))
                ),
            ),
        ):
            for name, a, b in zip(("u", "gain", "bias"), found, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4, err_msg=name)


def test_moments_of_the_inputs_stand_in_for_a_pass_over_the_rows():
    rng = np.random.default_rng(13)
    parameters, layers = moved_network(rng, (5, 8, 6, 3))
    z, mask = rng.normal(size=(60, 5)) + 0.3, (np.arange(60) < 50).astype(np.float32)
    inputs = tuple(
        jnp.asarray(each, dtype=jnp.float32) for each in (z[:50].mean(axis=0), np.cov(z[:50].T, bias=True))
    )
    z, target = jnp.asarray(z, dtype=jnp.float32), jnp.asarray(rng.normal(size=(6, 60)), dtype=jnp.float32)

    def loss(parameters, inputs):
        hidden, new = batch_hidden(z, jnp.asarray(mask), parameters, layers, inputs=inputs)
        return jnp.vdot(target * mask, hidden**2), new

    with jax.default_matmul_precision("float32"):
        (plain, new), gradient = jax.value_and_grad(loss, has_aux=True)(parameters, None)
        (given, known), found = jax.value_and_grad(loss, has_aux=True)(parameters, inputs)
    assert float(given) == pytest.approx(float(plain), rel=1e-5)
    for name in new:
        np.testing.assert_allclose(known[name], new[name], rtol=1e-4, atol=1e-6, err_msg=name)
    for name in ("weight_0", "gain_0", "bias_0", "weight_1"):
        np.testing.assert_allclose(found[name], gradient[name], rtol=1e-3, atol=2e-3, err_msg=name)


@pytest.mark.parametrize(("batch", "given"), [(1, False), (8, True)])
def test_training_with_and_without_sums_of_inputs_is_the_same(monkeypatch, batch, given):
    """Batches of 8 x 40 rows of 4 characteristics pay, those of 40 do not."""
    panel = characteristic_panel(n_periods=24, n_assets=40, n_factors=2, n_characteristics=4, seed=1).panel
    training = TrainingConfig(epochs=1, batch=batch)
    model = CAEModel(CAEConfig(n_factors=2, architecture=(6,), training=training))
    data = model._rows(panel)
    found = input_sums(data, batch)
    assert bool(found) is given
    for name, expected in (("sums", "rl->l"), ("squares", "rl,rm->lm")) if given else ():
        rows = data.z[data.offsets[3] : data.offsets[4]].astype(np.float64)
        operands = (rows,) if name == "sums" else (rows, rows)
        np.testing.assert_allclose(found[name][3], np.einsum(expected, *operands), rtol=1e-5, atol=1e-5)
    model.fit(panel)
    monkeypatch.setattr("latentfactors.models.cae.input_sums", lambda data, batch: {})
    plain = CAEModel(model.config)
    plain.fit(panel)
    np.testing.assert_allclose(model.summary.objective, plain.summary.objective, rtol=1e-4 if given else 0.0)


def test_members_that_share_their_inputs_are_read_in_one_product():
    rng = np.random.default_rng(12)
    sizes, z = (5, 8, 6, 3), rng.normal(size=(20, 5))
    each = [
        {name: a.astype(np.float64) for name, a in fresh_parameters(rng, sizes, True).items()} for _ in "abc"
    ]
    layers = {
        name: rng.uniform(0.5, 1.0, size=a.shape) for name, a in fresh_layers(sizes, batch_norm=True).items()
    }
    stacked = {name: np.stack([parameters[name] for parameters in each]) for name in each[0]}
    joined = forward(z, stacked, {name: np.stack([a] * 3) for name, a in layers.items()})
    assert joined.shape == (3, 20, 3)
    for found, parameters in zip(joined, each, strict=True):
        np.testing.assert_allclose(found, forward(z, parameters, layers), rtol=1e-12, atol=1e-14)


def test_loadings_are_kept_for_a_second_reading_where_there_is_room(monkeypatch):
    calls = []

    def own(rows):
        calls.append(rows.start)
        return np.full((2, rows.stop - rows.start, 1), float(rows.start))

    for most, expected in ((100, [0, 3]), (19, [0, 3, 0, 3])):
        calls.clear()
        monkeypatch.setattr("latentfactors.neural.ensemble._MOST_REMEMBERED", most)
        read = remembered(own, n_members=2, n_rows=10, n_factors=1)
        for _ in range(2):
            for rows in (slice(0, 3), slice(3, 10)):
                np.testing.assert_array_equal(read(rows), np.full((2, rows.stop - rows.start, 1), rows.start))
        assert calls == expected


def test_a_network_without_hidden_layers_is_linear():
    rng = np.random.default_rng(5)
    parameters = fresh_parameters(rng, (4, 2), batch_norm=True)
    z = rng.normal(size=(7, 4))
    expected = z @ parameters["weight_0"] + parameters["bias_0"]
    np.testing.assert_allclose(forward(z, parameters, {}), expected)
    assert set(parameters) == {"weight_0", "bias_0"}


# ------------------------------------------------------------------------ alignment


def test_members_that_differ_by_a_map_are_brought_together():
    rng = np.random.default_rng(6)
    loadings = rng.normal(size=(500, 3)) * [1.0, 0.5, 0.2]
    members = [loadings @ (rng.normal(size=(3, 3)) + 2 * np.eye(3)) for _ in range(4)]
    stacked = np.hstack(members)
    maps = align_members(stacked.T @ stacked / 500, 3)
    mapped = [b @ a for b, a in zip(members, maps, strict=True)]
    for each in mapped:
        np.testing.assert_allclose(each, mapped[0], atol=1e-9)
        np.testing.assert_allclose(each.T @ each / 500, np.eye(3), atol=1e-9)


def test_the_principal_turn_keeps_the_product_and_declares_itself():
    rng = np.random.default_rng(7)
    loadings, factors = rng.normal(size=(300, 3)), rng.normal(size=(80, 3)) - 0.2
    factors[5] = np.nan
    turn = principal_turn(loadings, factors)
    b, f = loadings @ turn, factors @ np.linalg.inv(turn).T
    np.testing.assert_allclose(b @ f[7], loadings @ factors[7], atol=1e-10)
    np.testing.assert_allclose(b.T @ b / 300, np.eye(3), atol=1e-10)
    f = f[np.isfinite(f).all(axis=1)]
    moments = f.T @ f
    assert np.abs(moments - np.diag(np.diag(moments))).max() < 1e-9 * moments[0, 0]
    assert np.all(np.diff(np.diag(moments)) < 0)
    assert np.all(f.mean(axis=0) >= 0)


def test_collapsed_members_are_left_out_of_the_alignment():
    rng = np.random.default_rng(8)
    loadings = rng.normal(size=(200, 2))
    members = [loadings @ (rng.normal(size=(2, 2)) + 2 * np.eye(2)) for _ in range(3)]
    dead = [np.ones((200, 2)), np.zeros((200, 2))]  # rank one, as of dead units, and none
    stacked = np.hstack([dead[0], *members[:2], dead[1], members[2]])
    maps = align_members(stacked.T @ stacked / 200, 2)
    assert living_members(maps).tolist() == [False, True, True, False, True]
    alone = np.hstack(members)
    np.testing.assert_allclose(maps[[1, 2, 4]], align_members(alone.T @ alone / 200, 2), atol=1e-9)


def test_collapsed_loadings_are_named_where_no_member_is_left():
    gram = np.diag([1.0, 1e-14, 1.0, 1e-14])
    with pytest.raises(TrainingError, match=r"member 1's loadings have rank 1 after training, expected 2"):
        align_members(gram, 2)


# ------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number, at least 1, got 0"),
        ({"batch": 1.5}, "batch must be a whole number"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number > 0"),
        ({"learning_rate": np.nan}, "learning_rate must be a finite number > 0"),
        ({"weight_decay": 0.1}, "needs optimiser='adamw'"),
        ({"optimiser": "sgd"}, "optimiser must be one of"),
        ({"validation": 1.0}, "validation must be"),
        ({"validation": True}, "validation must be"),
        ({"patience": 0}, "patience must be a whole number, at least 1"),
        ({"checkpoint_epochs": (101,)}, "checkpoint_epochs must be epochs from 1 to 100, got 101"),
        ({"default_checkpoint": 50}, "default_checkpoint must be 'last', 'best' or one of the kept epochs"),
        ({"default_checkpoint": "first"}, "default_checkpoint must be"),
        ({"device": "tpu"}, "device must be one of"),
        ({"gradient_clip": -1.0}, "gradient_clip must be a finite number > 0"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        TrainingConfig(**options)


def test_validation_periods():
    assert TrainingConfig(validation=0.2).validation_periods(60) == 12
    assert TrainingConfig(validation=7).validation_periods(60) == 7
    assert TrainingConfig(validation=7).validation_periods(60, given=True) == 0
    with pytest.raises(InsufficientDataError, match="takes 60 periods of 60"):
        TrainingConfig(validation=60).validation_periods(60)
    with pytest.raises(ConfigurationError, match="patience=3 needs validation"):
        TrainingConfig(patience=3).validation_periods(60)
    with pytest.raises(ConfigurationError, match="default_checkpoint='best' needs validation"):
        TrainingConfig(default_checkpoint="best").validation_periods(60)


def test_the_cosine_schedule_ends_near_zero():
    config = TrainingConfig(epochs=10, learning_rate=0.1, schedule="cosine")
    rates = [config.rate(epoch) for epoch in range(1, 11)]
    assert rates[0] == 0.1
    assert np.all(np.diff(rates) < 0)
    assert 0 < rates[-1] < 0.01


def test_a_missing_extra_is_named(monkeypatch):
    require_deep("CAEModel")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "optax" else object())
    with pytest.raises(
        MissingCapabilityError, match=r"optax is not installed: pip install 'latentfactors\[deep\]'"
    ):
        require_deep("CAEModel")


@pytest.mark.parametrize("package", ["jax", "equinox", "optax"])
def test_fit_names_the_extra_that_is_missing(monkeypatch, package):
    panel = characteristic_panel(n_periods=20, n_assets=10, n_factors=1, seed=1).panel
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(
        MissingCapabilityError, match=rf"{package} is not installed: pip install 'latentfactors\[deep\]'"
    ):
        CAEModel(CAEConfig(n_factors=1)).fit(panel)


@pytest.mark.parametrize("platform", ["cuda", "no_such_platform"])
def test_a_platform_that_jax_does_not_have_is_named(platform):
    if any(device.platform == "gpu" for device in jax.devices()):
        pytest.skip("there is a GPU here")
    code = """
from latentfactors import TrainingConfig
from latentfactors.errors import ConfigurationError
from latentfactors.neural.policy import device_scope
for device in ("auto", "cpu", "gpu"):
    try:
        device_scope(TrainingConfig(device=device))
    except ConfigurationError as error:
        print(error)
"""
    environment = {**os.environ, "JAX_PLATFORMS": platform}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    said = done.stdout.splitlines()
    assert len(said) == 3
    for device, line in zip(("auto", "cpu", "gpu"), said, strict=True):
        assert line.startswith(f"device={device!r} cannot be used")
        assert f"platforms {platform!r}" in line


def test_the_library_starts_without_jax():
    code = "import sys, latentfactors as lf; lf.CAEModel, lf.TrainingConfig; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
