"""US monthly series and GDP nowcast by deep and by linear dynamic factor models.

python studies/d2fm_nowcast.py [--quick] [--first 2005] [--every 1] [--restarts 4] [--least-squares]

In the manner of tables 5 and 6 of Andreini, Izzo and Ricco (2020): pseudo real time on 23 monthly series and
GDP, real vintages of the New York Fed, seven vintages of FRED-MD with GDP; AR(1) is the benchmark. Hyper-
parameters of the network are chosen on what was known before the first nowcast; parameters are estimated
anew once a year.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from _common import HERE, arguments, data_folder, machine, number, table, write_section
from nowcast_us_gdp import (
    GDP,
    PANDEMIC,
    STEMS,
    first_releases,
    fred_vintage,
    log_points,
    markdown,
    new_york_store,
    pseudo_store,
)

from latentfactors import (
    D2FMConfig,
    D2FMModel,
    DFMConfig,
    DynamicFactorModel,
    ExpandingWindow,
    LatentFactorForecastPipeline,
    NativeFactorForecaster,
    NativeMapper,
    NowcastPredictor,
    Panel,
    SeriesBenchmark,
    SeriesBenchmarkConfig,
    VintageSplits,
    composite_indicator,
    nowcast_news,
    walk_forward,
)
from latentfactors.evaluate import (
    NowcastRecord,
    config_grid,
    nowcast_record,
    nowcast_records,
    nowcast_table,
    released_tables,
    search,
    series_nowcast_summary,
    series_nowcast_table,
)
from latentfactors.nowcast import nowcast
from latentfactors.nowcast.indicator import invariant_indicator, printed_indicator

PAGE = HERE / "results" / "d2fm_nowcast.md"
WEEKS = (30, 26, 20, 14, 8, 6, 4, 2)


class HeldThroughYear(NowcastPredictor):
    """Nowcasts with parameters of the first vintage that has data of a year, for all vintages of the year."""

    def __init__(self, model: Any, targets: tuple[Any, ...], found: dict[str, Any] | None = None) -> None:
        # every series is a target, so means alone: variances of all these cells would take hours
        super().__init__(model, targets, densities=False)
        self.found = {} if found is None else found

    def fit(self, panel: Panel) -> Any:
        year = str(panel.times[panel.n_realised - 1])[:4]
        if year not in self.found:
            super().fit(panel)
            self.found[year] = self.model
        self.model = self.found[year]
        return self.model.summary

    def clone(self) -> Self:
        return type(self)(self.model.clone(), self.targets, self.found)


def linear(n_factors: int) -> DynamicFactorModel:
    return DynamicFactorModel(DFMConfig(n_factors=n_factors, tolerance=1e-2, max_iterations=300))


def candidates(restarts: int, seed: int, quick: bool) -> dict[str, D2FMConfig]:
    """What validation chooses among, from plain to rich."""
    base = D2FMConfig(n_factors=1, n_restarts=restarts, seed=seed)
    axes: dict[str, tuple[Any, ...]] = {"n_factors": (1, 2, 3)}
    if quick:
        base, axes = replace(base, max_iterations=2, n_restarts=1), {"n_factors": (1, 2)}
    return config_grid(base, axes)


def choose(panel: Panel, configs: dict[str, D2FMConfig], quick: bool) -> tuple[D2FMConfig, str]:
    """The configuration with the best one-month forecasts of the last eight years, and the table."""
    models = {
        name: LatentFactorForecastPipeline(
            model=D2FMModel(config), forecaster=NativeFactorForecaster(), mapper=NativeMapper()
        )
        for name, config in configs.items()
    }
    first = panel.n_realised - 96
    found = search(
        models, panel.between(0, panel.n_realised), ExpandingWindow(first=first, step=96 if quick else 48)
    )
    lines = [
        [name, number(loss, 4), number(error, 4), "chosen" if name == found.chosen else reason]
        for name, loss, error, reason in zip(
            found.names, found.loss, found.standard_error, found.reasons, strict=True
        )
    ]
    text = table(["configuration", "loss", "standard error of the difference", ""], lines)
    return configs[found.chosen], text


def rivals(
    config: D2FMConfig, targets: tuple[Any, ...], least_squares: bool = False
) -> dict[str, NowcastPredictor]:
    benchmark = SeriesBenchmark(SeriesBenchmarkConfig(targets=targets))
    printed = D2FMModel(replace(config, loadings="least_squares"))
    return {
        "D2FM": HeldThroughYear(D2FMModel(config), targets),
        **({"D2FM, least squares": HeldThroughYear(printed, targets)} if least_squares else {}),
        "DFM(1)": HeldThroughYear(linear(1), targets),
        "DFM(2)": HeldThroughYear(linear(2), targets),
        "AR(1)": HeldThroughYear(benchmark, targets),
    }


def gdp_share(table_: pl.DataFrame, days: int) -> pl.DataFrame:
    """Bins nearer than some days that hold five quarters or more."""
    kept = ("name", "days_to_release", "n_periods", "rmsfe", "relative_rmsfe", "dm_p")
    usable = (pl.col("days_to_release") < days) & (pl.col("n_periods") >= 5)
    return table_.filter(usable).select(kept)


# ------------------------------------------------------------------------------------ pseudo real time


def pseudo_real_time(options: argparse.Namespace) -> tuple[str, D2FMConfig]:
    store = pseudo_store(options.data)
    months = np.arange(np.datetime64(f"{options.first}-01"), np.datetime64("2020-01"))
    dates = list(months.astype("datetime64[D]") + np.timedelta64(19, "D"))[
        :: 60 if options.quick else options.every
    ]
    known = store.as_of(dates[0])
    config, chosen = choose(known, candidates(options.restarts, options.seed, options.quick), options.quick)
    targets = tuple(store.series.tolist())
    splits, final = VintageSplits(store, tuple(dates), ahead=11), store.as_of(store.dates[-1])
    released = released_tables(store, since=f"{options.first - 1}-01")
    gdp: dict[str, NowcastRecord] = {}
    monthly: dict[str, dict[Any, NowcastRecord]] = {}
    seconds = {}
    for name, predictor in rivals(config, targets, options.least_squares).items():
        began = time.process_time()
        result = walk_forward(predictor, final, splits, horizon=-4)
        seconds[name] = time.process_time() - began
        for failure in result.failures:
            print(f"{name}: {failure.split}: {failure.error}")
        gdp[name] = log_points(nowcast_record(result, GDP, first_releases(options.data)))
        monthly[name] = nowcast_records(result, {k: v for k, v in released.items() if k != GDP})
        print(name, f"{seconds[name]:.0f} s", flush=True)
    crisis = np.arange(np.datetime64("2008-01"), np.datetime64("2010-02")).astype("datetime64[D]")
    crisis -= np.timedelta64(1, "D")
    parts = []
    for skip, words in (((), "all periods"), (tuple(crisis), "without 2008 and 2009")):
        scores = nowcast_table(gdp, benchmark="AR(1)", days_per_bin=30, skip=skip)
        each = series_nowcast_table(monthly, benchmark="AR(1)", days_per_bin=30, skip=skip)
        summary = series_nowcast_summary(each).filter(pl.col("days_to_release") < 90)
        parts += [
            f"GDP against its first release, {words}:",
            markdown(gdp_share(scores, 210)),
            f"All {store.series.size - 1} monthly series, {words}: a ratio of RMSFE to AR(1) each.",
            markdown(summary),
        ]
        if not skip:
            near = each.filter(pl.col("days_to_release") == 0)
            lines, factor_models = [], [name for name in monthly if name != "AR(1)"]
            for label in dict.fromkeys(near["series"].to_list()):
                mine = near.filter(pl.col("series") == label)
                ratio = dict(zip(mine["name"], mine["relative_rmsfe"], strict=True))
                lines.append([label, mine["n_periods"][0], *(number(ratio[k]) for k in factor_models)])
            by_series = table(["series", "months", *factor_models], lines)
            parts += ["RMSFE relative to AR(1) in the last 30 days before the release, by series:", by_series]
    used = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
    text = f"""### Pseudo real time, {len(dates)} vintages from {dates[0]} to {dates[-1]}

23 monthly series of FRED-MD 2023-12 with the publication lags of today's calendars, GDP of FRED-QD on the
days of its first releases: the ragged edge is realistic, the values are final ones. Parameters of all models
are estimated once a year, on the first vintage with data of the year, and then held; CPU seconds for
{len(dates)} vintages: {used}. D2FM: tanh, linear codes and decoder, best of
{config.n_restarts} restart(s) by loss.
The number of factors was chosen on one-month forecasts of all series in the eight years before the first
nowcast:

{chosen}

""" + "\n\n".join(parts)
    return text + "\n\n" + printed_tables(options.data), config


def printed_tables(data: Path) -> str:
    """Tables 5 and 6 as printed: another sample and other series, so for orientation."""
    folder = data / "published"
    lines = []
    for name, what in (
        ("d2fm_table_5_gdp_rmse_relative_to_ar1", "GDP"),
        ("d2fm_table_6_monthly_rmse_relative_to_ar1", "monthly"),
    ):
        path = folder / f"{name}.csv"
        if path.is_file():
            frame = pl.read_csv(path)
            for row in frame.iter_rows(named=True):
                cells = [number(row.get(f"w{week}", np.nan)) for week in WEEKS]
                lines.append([f"{what}: {row['model']}", *cells])
    if not lines:
        return ""
    heads = ["in print, relative to AR(1)", *(f"{week} weeks" for week in WEEKS)]
    return "What the paper prints (its own sample and series):\n\n" + table(heads, lines)


# ------------------------------------------------------------------------------------ real vintages


def new_york(options: argparse.Namespace, config: D2FMConfig) -> str:
    store, days = new_york_store(options.data)
    dates = days[:: 20 if options.quick else 4]
    monthly_names = tuple(
        name for name, own in zip(store.series.tolist(), store.info.frequency, strict=True) if own == "M"
    )
    # a benchmark needs every target in every vintage
    first = store.as_of(dates[0])
    long = [
        name
        for name in monthly_names
        if np.isfinite(first.wide()[:, first.assets.tolist().index(name)]).sum() > 60
    ]
    targets = (*long, GDP)
    splits, final = VintageSplits(store, tuple(dates), ahead=7), store.as_of(days[-1])
    released = released_tables(store, long, since="2016-05-01")
    monthly: dict[str, dict[Any, NowcastRecord]] = {}
    for name, predictor in rivals(config, targets).items():
        result = walk_forward(predictor, final, splits, horizon=-2)
        for failure in result.failures:
            print(f"{name}: {failure.split}: {failure.error}")
        monthly[name] = nowcast_records(result, released)
    each = series_nowcast_table(monthly, benchmark="AR(1)", days_per_bin=14)
    summary = series_nowcast_summary(each, least_periods=4).filter(pl.col("days_to_release") < 70)
    model = D2FMModel(config)
    panels = [store.as_of(day) for day in dates]
    model.fit(panels[0])
    worst, exact, changes = 0.0, True, []
    for before, after in pairwise(panels):
        found = nowcast_news(model, model, before, after, GDP, "2016-12-31")
        exact &= found.exact
        worst = max(worst, abs(400 * (found.contribution.sum() - found.revision)))
        changes.append(400 * found.revision)
    begin, end = (
        400 * nowcast(model, p, GDP, periods=["2016-12-31"]).mean[0] for p in (panels[0], panels[-1])
    )
    return f"""### Vintages of the New York Fed, {dates[0]} to {dates[-1]}, every fourth of 80

Monthly series against their first releases, at least four months a series; ratios of RMSFE to AR(1).

{markdown(summary)}

Half a year of vintages shows that the desk runs on the network, not who is better. News of GDP in 2016Q4 from
D2FM with parameters held: {begin:.2f} to {end:.2f} over {len(changes)} steps, lines are
{"weights times news" if exact else "telescoped"}; the largest difference between a revision and the
sum of its lines is {worst:.1e} log points.
"""


def seven(options: argparse.Namespace, config: D2FMConfig) -> str:
    released, lines = first_releases(options.data), []
    for stem in STEMS[: 1 if options.quick else None]:
        panel = fred_vintage(options.data, stem)
        last = panel.times[-1].astype("datetime64[M]")
        hidden = tuple(month for month in PANDEMIC if np.datetime64(month, "M") <= last)
        months = np.array([str(time)[:7] in hidden for time in panel.times])
        # the network has no option for months that estimation does not see: they are hidden from its fit
        seen = panel.mask(months[panel.index.period_codes])
        row = []
        for model, training in (
            (D2FMModel(config), seen),
            (DynamicFactorModel(replace(linear(2).config, masked=hidden)), panel),
            (SeriesBenchmark(SeriesBenchmarkConfig(targets=(GDP,))), panel),
        ):
            model.fit(training)
            found = nowcast(model, panel, GDP, ahead=0)
            row.append(400 * found.mean[0])
        quarter = found.periods[0]
        truth = released[quarter][1] if quarter in released else np.nan
        lines.append([stem, str(quarter)[:7], *row, truth])
    errors = {
        name: np.array([line[2 + k] - line[5] for line in lines])
        for k, name in enumerate(("D2FM", "DFM(2)", "AR(1)"))
    }
    calm = np.array([line[1] != "2020-06" for line in lines])
    rmse = {
        name: (np.sqrt(np.nanmean(e**2)), np.sqrt(np.nanmean(e[calm] ** 2))) for name, e in errors.items()
    }
    text = ", ".join(f"{name} {a:.2f} ({b:.2f})" for name, (a, b) in rmse.items())
    heads = ["file", "quarter", "D2FM", "DFM(2)", "AR(1)", "first release"]
    shown = table(heads, [[*line[:2], *(number(value) for value in line[2:])] for line in lines])
    return f"""### Seven vintages of FRED-MD with GDP

About 118 monthly series from 1985; March to September 2020 hidden from estimation; the quarter is the first
one without GDP in the file, annualised log points. The network's configuration is the one chosen above, on
other series.

{shown}

Root mean squared errors over these quarters, in brackets without 2020Q2: {text}. Seven files rank nobody.
"""


# ------------------------------------------------------------------------------------ composite indicator


def indicators(options: argparse.Namespace, config: D2FMConfig) -> str:
    """How far both forms depend on what the factors do not determine."""
    store = pseudo_store(options.data)
    panel = store.as_of(store.dates[-1])
    config = replace(config, n_factors=max(config.n_factors, 2))
    fits = []
    for seed in range(2 if options.quick else 4):
        model = D2FMModel(replace(config, seed=seed))
        model.fit(panel)
        fits.append(model.smooth(panel))
    reference = DynamicFactorModel(DFMConfig(n_factors=config.n_factors, tolerance=1e-2, max_iterations=300))
    reference.fit(panel)
    states = [*fits, reference.smooth(panel)]
    lines = []
    for form in ("invariant", "printed"):
        paths = np.array([composite_indicator(state, "INDPRO", form=form).values for state in states])
        paths = paths[:, np.isfinite(paths).all(axis=0)]
        among = np.corrcoef(paths)
        own = among[: len(fits), : len(fits)][np.triu_indices(len(fits), 1)]
        turned = []
        loadings = fits[0].measurement.loadings.values
        loadings = loadings[np.isfinite(loadings).all(axis=1)]
        factors = fits[0].factors.values
        factors = factors[np.isfinite(factors).all(axis=1)]
        rng = np.random.default_rng(0)
        for _ in range(200):
            turn = np.linalg.qr(rng.normal(size=(config.n_factors,) * 2))[0]
            if form == "printed":
                a, b = printed_indicator(factors @ turn), printed_indicator(factors)
            else:
                a, b = (
                    invariant_indicator(f, w)[0]
                    for f, w in ((factors @ turn, loadings @ turn), (factors, loadings))
                )
            turned.append(abs(np.corrcoef(a, b)[0, 1]))
        values = (own.min(), among[-1, : len(fits)].min(), np.min(turned), np.median(turned))
        lines.append([form, *(number(float(value), 3) for value in values)])
    heads = [
        "form",
        "smallest between seeds",
        "smallest with the DFM's",
        "smallest over 200 rotations",
        "median",
    ]
    return f"""### Composite indicator, equation (29)

{config.n_factors} factors on the panel of the pseudo real-time study, smoothed, {len(fits)} seeds of the
network; correlations of indicators with the sign of industrial production. A rotation of factors and loadings
is the same model.

{table(heads, lines)}
"""


def main() -> None:
    more = argparse.ArgumentParser(add_help=False)
    more.add_argument("--first", type=int, default=2005, help="first year of the pseudo real-time part")
    more.add_argument("--every", type=int, default=1, help="months between its vintages")
    more.add_argument("--restarts", type=int, default=4)
    more.add_argument("--seed", type=int, default=0)
    more.add_argument(
        "--least-squares", action="store_true", help="also D2FM with loadings as printed, in pseudo real time"
    )
    options = arguments(__doc__.splitlines()[0], more)
    for name in ("fred_md", "fred_qd", "gdp_realtime", "nyfed_nowcast_vintages", "fred_bvar_vintages"):
        data_folder(options.data, name)
    began = time.process_time()
    settings = f"--first {options.first} --every {options.every} --restarts {options.restarts}"
    settings += f" --seed {options.seed}" + " --least-squares" * options.least_squares
    sections = [
        f"`python studies/d2fm_nowcast.py {settings}`",
        "RMSFE ratios below 1 beat AR(1); `dm_p` is the two-sided Diebold-Mariano test against it.",
    ]
    text, config = pseudo_real_time(options)
    sections.append(text)
    show(sections, options.quick, began)
    for section in (new_york, seven, indicators):
        sections.append(section(options, config))
        show(sections, options.quick, began)


def show(sections: list[str], quick: bool, began: float) -> None:
    """Print or write what there is so far."""
    used = f"{time.process_time() - began:.0f} CPU seconds, on a busy machine."
    page = "\n\n".join([*sections, f"{machine('jax', 'equinox', 'optax')}; {used}"])
    if quick:
        print(sections[-1], flush=True)
        return
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(f"# Nowcasts by deep dynamic factors\n\n{page}\n", encoding="utf-8")
    write_section("d2fm_nowcast", page)


if __name__ == "__main__":
    main()
