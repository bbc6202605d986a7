"""US GDP growth nowcast in real time and in pseudo real time, against AR(1), the mean, GDPNow, statsmodels.

    python studies/nowcast_us_gdp.py [--data FOLDER] [--quick] [--only SECTION]

Writes studies/results/nowcast_us_gdp.md. The data are not part of the repository. statsmodels is compared to
where it is installed.
"""

from __future__ import annotations

import argparse
import gzip
import os
import time
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from _statsmodels_factors import fit_peer, side_by_side, statsmodels_version
from threadpoolctl import threadpool_limits

from latentfactors import (
    DFMConfig,
    DynamicFactorModel,
    NowcastPredictor,
    Panel,
    ReleaseCalendar,
    SeriesBenchmark,
    SeriesBenchmarkConfig,
    SeriesInfo,
    VintageSplits,
    VintageStore,
    mixed_frequency_panel,
    nowcast_news,
    walk_forward,
)
from latentfactors.evaluate import NowcastRecord, nowcast_record, nowcast_table
from latentfactors.nowcast import nowcast

HERE = Path(__file__).resolve().parent
GDP = "GDPC1"
CODES = {
    "none": 1, "1st-diff": 2, "2nd-diff": 3, "log": 4, "log-diff": 5, "log-2nd-diff": 6, "pct-ch-diff": 7
}  # fmt: skip
PANDEMIC = [f"2020-{month:02d}" for month in range(3, 10)]
# days from the end of the month (quarter) to the first release, as the agencies' calendars usually have it
LAGS = {
    "PAYEMS": 5, "UNRATE": 5, "MANEMP": 5, "AWHMAN": 5, "CLAIMSx": 5, "INDPRO": 16, "CUMFNS": 16, "RPI": 30,
    "DPCERA3M086SBEA": 30, "RETAILx": 14, "CMRMTSPLx": 45, "HOUST": 17, "PERMIT": 17, "AMDMNOx": 27,
    "BUSINVx": 44, "UMCSENTx": 0, "M2REAL": 25, "S&P 500": 1, "FEDFUNDS": 1, "T10YFFM": 1, "BAAFFM": 1,
    "CPIAUCSL": 13, "OILPRICEx": 1, GDP: 30,
}  # fmt: skip
NY_CODES = {"pch": "log_difference", "pca": "log_difference", "chg": "difference", "lin": "level"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("LATENTFACTORS_DATA", str(HERE.parent.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--quick", action="store_true", help="little of the work, printed only")
    parser.add_argument("--only", choices=list(SECTIONS), help="one section; the others stay as they are")
    options = parser.parse_args()
    for name in [options.only] if options.only else SECTIONS:
        with threadpool_limits(limits=1):
            text = globals()[name](options.data, options.quick).strip()
        print(text) if options.quick else write(name, text)


def write(name: str, text: str) -> None:
    """Put a section into the results, in its place."""
    out = HERE / "results" / "nowcast_us_gdp.md"
    out.parent.mkdir(exist_ok=True)
    parts = out.read_text(encoding="utf-8").split("\n## ")[1:] if out.exists() else []
    found = {
        key: f"## {part.strip()}" for key, title in SECTIONS.items() for part in parts if title in part[:60]
    }
    found[name] = text
    sections = [found[key] for key in SECTIONS if key in found]
    out.write_text("\n\n\n".join([HEAD.strip(), *sections]) + "\n", encoding="utf-8")
    print(f"written to {out}: {name}", flush=True)


# function -> what its heading holds
SECTIONS = {
    "new_york_vintages": "New York",
    "seven_vintages": "Seven vintages",
    "pseudo_real_time": "Pseudo real time",
}
HEAD = """# Nowcasts of US GDP growth

Written by `python studies/nowcast_us_gdp.py`. Growth is quarterly, annualised, in log percentage points (400
times the change of the log); GDPNow and the released growth rates are put into the same unit. The truth is
the first release. Seconds are processor time on one thread of a busy machine.
"""


# ------------------------------------------------------------------------------------ what was released


def read_table(path: Path) -> pl.DataFrame:
    return pl.read_csv(gzip.decompress(path.read_bytes()), infer_schema_length=None)


def first_releases(data: Path) -> dict[np.datetime64, tuple[np.datetime64, float]]:
    """Last day of the quarter -> day and value of the first release, log points at an annual rate."""
    lines = read_table(data / "gdp_realtime" / "gdpc1_releases.csv.gz")
    found = {}
    for line in lines.iter_rows(named=True):
        growth = line["qoq_saar_growth_alfred_first_pct"]
        if growth is not None and line["first_release_date"]:
            quarter = np.datetime64(str(line["observation_date"])[:7], "M") + np.timedelta64(3, "M")
            end = quarter.astype("datetime64[D]") - np.timedelta64(1, "D")
            found[end] = (np.datetime64(str(line["first_release_date"])[:10]), 100 * np.log1p(growth / 100))
    return found


def gdpnow(data: Path) -> list[tuple[np.datetime64, np.datetime64, float]]:
    """(day, quarter, nowcast in log points)."""
    lines = read_table(data / "gdp_realtime" / "atlantafed_gdpnow.csv.gz")

    def day(text: str) -> np.datetime64:
        month, number, year = (int(part) for part in text.split("/"))
        return np.datetime64(f"20{year:02d}-{month:02d}-{number:02d}")

    return [(day(a), day(b), 100 * np.log1p(c / 100)) for a, b, c in lines.iter_rows() if c is not None]


def gdpnow_record(data: Path, record: NowcastRecord) -> NowcastRecord:
    """GDPNow's last number on the day of every nowcast of another record, NaN before its first."""
    published = gdpnow(data)
    values = []
    for day, quarter in zip(record.as_of, record.period, strict=True):
        known = [value for when, which, value in published if which == quarter and when <= day]
        values.append(known[-1] if known else np.nan)
    return replace(record, forecast=np.array(values), variance=np.full(len(values), np.nan))


def log_points(record: NowcastRecord) -> NowcastRecord:
    """From quarterly log changes to annualised log points; the truth is in them already."""
    return replace(record, forecast=400 * record.forecast, variance=400**2 * record.variance)


def predictors(config: DFMConfig) -> dict[str, NowcastPredictor]:
    rivals = {
        name: NowcastPredictor(SeriesBenchmark(SeriesBenchmarkConfig(targets=(GDP,), method=method)), (GDP,))
        for name, method in (("AR(1)", "ar1"), ("mean", "mean"))
    }
    return {"DFM": NowcastPredictor(DynamicFactorModel(config), (GDP,)), **rivals}


def run(
    store: VintageStore, dates: list[np.datetime64], data: Path, config: DFMConfig
) -> tuple[dict[str, NowcastRecord], int]:
    """Walk-forward of all predictors over vintages, released quarters only; factor models that converged."""
    splits = VintageSplits(store, tuple(dates), ahead=11)
    released, final = first_releases(data), store.as_of(store.dates[-1])
    records, converged = {}, 0
    for name, predictor in predictors(config).items():
        result = walk_forward(predictor, final, splits, horizon=-4)
        for failure in result.failures:
            print(f"{name}: {failure.split}: {failure.error}")
        records[name] = log_points(nowcast_record(result, GDP, released))
        if name == "DFM":
            converged = sum(summary.converged for summary in result.summaries)
    return records, converged


def beside_statsmodels(
    store: VintageStore, records: dict[str, NowcastRecord], config: DFMConfig, days: int, step: int = 1
) -> str:
    """Nowcasts by statsmodels on every `step`-th day, added to the records if on all, beside ours."""
    if statsmodels_version() is None:
        return "statsmodels is not installed where this was written: no comparison with it."
    record = records["DFM"]
    kept = np.isin(record.as_of, np.unique(record.as_of)[::step])
    record = replace(record, **{each.name: getattr(record, each.name)[kept] for each in fields(record)})
    found = side_by_side(store, record, config, GDP, 400.0)
    same = np.abs(found.records["DFM"].forecast - record.forecast).max()
    assert same < 1e-6, f"our nowcasts differ by {same} from those of the walk-forward"
    if step == 1:
        records["statsmodels"] = found.records["statsmodels"]
    scores = nowcast_table(found.records, benchmark="statsmodels", days_per_bin=days)
    apart = np.abs(found.records["DFM"].forecast - found.records["statsmodels"].forecast)
    shown = ["days_to_release", "n_periods", "relative_rmsfe", "dm_p"]
    ours = scores.filter((pl.col("name") == "DFM") & (pl.col("days_to_release") < 210)).select(shown)
    return f"""### The same model fitted by statsmodels

Both refitted on {len(found.fits)} vintages. RMSFE of ours relative to that of statsmodels (below 1: ours is
nearer), and the Diebold-Mariano test of equal squared errors:

{markdown(ours)}

{found.words()}
Their nowcasts differ by {np.median(apart):.2f} log points in the median, {apart.max():.2f} at most.
"""


def markdown(frame: pl.DataFrame, digits: int = 2) -> str:
    def shown(value: object) -> str:
        if isinstance(value, float):
            return "–" if value != value else f"{value:.{digits}f}"
        return str(value)

    heads = frame.columns
    lines = ["| " + " | ".join(heads) + " |", "|" + "|".join(["---"] + ["---:"] * (len(heads) - 1)) + "|"]
    lines += ["| " + " | ".join(shown(value) for value in row) + " |" for row in frame.iter_rows()]
    return "\n".join(lines)


# ------------------------------------------------------------------------------------ New York vintages


def new_york_store(data: Path) -> tuple[VintageStore, list[np.datetime64]]:
    """All 80 vintages and their days."""
    folder = data / "nyfed_nowcast_vintages"
    table = pl.read_parquet(folder / "us_vintages_2016_2017.parquet")
    lines = pl.read_csv(folder / "spec_us_example.csv").to_dicts()
    spec = {line["SeriesID"]: line for line in lines}
    series = [name for name in table.columns if name not in ("vintage", "Date")]
    info = SeriesInfo(
        frequency=tuple("Q" if spec[name]["Frequency"] == "q" else "M" for name in series),
        aggregation=tuple(
            "mariano_murasawa" if spec[name]["Frequency"] == "q" else "mean" for name in series
        ),
        group=tuple(spec[name]["Category"] for name in series),
    )

    def vintage(day: str) -> Panel:
        part = table.filter(pl.col("vintage") == day).sort("Date")
        return Panel.from_wide(
            part.select(series).to_numpy(), universe="all", assets=series, frequency="M", value_kind="series",
            times=part["Date"].to_numpy().astype("datetime64[D]"), series=info,
        )  # fmt: skip

    days = sorted(table["vintage"].unique().to_list())
    codes = {name: NY_CODES[spec[name]["Transformation"]] for name in series}
    store = VintageStore.from_vintages([(day, vintage(day)) for day in days], codes=codes)
    return store, [np.datetime64(day) for day in days]


def new_york_vintages(data: Path, quick: bool) -> str:
    store, days = new_york_store(data)
    config = DFMConfig(n_factors=1, max_iterations=1000)
    dates = days[:: 20 if quick else 1]
    began = time.process_time()
    records, converged = run(store, dates, data, config)
    seconds = time.process_time() - began
    peer = beside_statsmodels(store, records, config, 28, step=1 if quick else 10)
    records["GDPNow"] = gdpnow_record(data, records["DFM"])
    scores = nowcast_table(records, benchmark="AR(1)", days_per_bin=28)
    # news between all neighbouring vintages for one quarter, parameters held at the first fit
    model = DynamicFactorModel(config)
    panels = [store.as_of(day) for day in dates]
    model.fit(panels[0])
    quarter, worst, sums = "2016-12-31", 0.0, {}
    pairs = list(pairwise(panels))
    for before, after in pairs:
        found = nowcast_news(model, model, before, after, GDP, quarter)
        worst = max(worst, abs(400 * (found.contribution.sum() - found.revision)))
        for kind, part in found.by("kind").items():
            sums[kind] = sums.get(kind, 0.0) + 400 * part
    start, end = (
        400 * nowcast(model, panel, GDP, periods=[quarter]).mean[0] for panel in (panels[0], panels[-1])
    )
    kinds = ", ".join(f"{kind} {part:+.2f}" for kind, part in sums.items())
    return f"""
## {len(dates)} real vintages of the New York Fed's panel, {dates[0]} to {dates[-1]}

{store.series.size} series, three of them quarterly; one factor, AR(1) idiosyncratic terms, refitted on every
vintage ({seconds:.0f} seconds for {3 * len(dates)} fits; {converged} of {len(dates)} factor models
converged). RMSFE against the first release by days to release,
ratios to AR(1).

{markdown(scores)}

Only three quarters (2016Q2 to 2016Q4) are nowcast, one of them from its last days: this shows that the
machinery runs on real vintages, not who is better, and tests on so few say nothing.

News of 2016Q4 over the {len(pairs)} steps between vintages, parameters held: from {start:.2f} to {end:.2f},
by kind: {kinds}.
The largest difference between a revision and the sum of its lines is {worst:.1e} log points.

{peer}"""


# ------------------------------------------------------------------------------------ seven FRED vintages


STEMS = ("2020-02", "2020-03", "2020-09", "2021-09", "2021-11", "2023-03", "2024-02")


def fred_vintage(data: Path, stem: str) -> Panel:
    """FRED-MD of a file with GDP of FRED-QD, from 1985; outliers beyond ten interquartile ranges hidden."""
    folder = data / "fred_bvar_vintages"
    # three series of the older files that the list of codes lacks, as FRED-MD has them
    codes = {"TWEXMMTH": 5, "MZMSL": 6, "VXOCLSx": 1}
    for line in read_table(folder / "fred_trans.csv.gz").iter_rows(named=True):
        codes[line["variable"]] = CODES.get(line["fred_md"] or line["fred_qd"], 1)
    panel = mixed_frequency_panel(
        folder / f"fred_md_{stem}.csv.gz",
        folder / f"fred_qd_{stem}.csv.gz",
        codes=codes,
        outlier_threshold=10.0,
    )
    return panel.between(panel.index.position("1985-01"), panel.n_periods)


def seven_vintages(data: Path, quick: bool) -> str:
    released, published = first_releases(data), gdpnow(data)
    lines, gains, steps = [], [], []
    for stem in STEMS[: 1 if quick else None]:
        panel = fred_vintage(data, stem)
        inside = [m for m in PANDEMIC if np.datetime64(m, "M") <= panel.times[-1].astype("datetime64[M]")]
        config = DFMConfig(n_factors=2, masked=tuple(inside), max_iterations=1000)
        model = DynamicFactorModel(config)
        began = time.process_time()
        model.fit(panel)
        seconds = time.process_time() - began
        first = panel.times[np.isfinite(panel.wide()[:, panel.assets.tolist().index(GDP)])][-1]
        found = nowcast(model, panel, GDP, ahead=0)
        rivals = []
        for method in ("ar1", "mean"):
            rival = SeriesBenchmark(SeriesBenchmarkConfig(targets=(GDP,), method=method))
            rival.fit(panel)
            rivals.append(400 * nowcast(rival, panel, GDP, ahead=0).mean[0])
        quarter = found.periods[0]
        theirs, spent = np.nan, np.nan
        if statsmodels_version() is not None:
            peer = fit_peer(model, panel)
            theirs, spent = 400 * peer.law(panel, GDP, [quarter])[0][0], peer.seconds
            print(f"{stem}: statsmodels {spent:.0f} s, {peer.iterations} iterations", flush=True)
            gains.append(float(model.summary.loglikelihood) - peer.loglikelihood)
            steps.append(peer.iterations)
        edge = panel.times[panel.n_realised - 1]
        # what GDPNow said when the data ended, its nearest number in the following six weeks
        near = [
            v for when, which, v in published if which == quarter and when <= edge + np.timedelta64(42, "D")
        ]
        low, high = found.intervals(0.9)
        lines.append(
            (
                stem, str(edge)[:7], str(first)[:7], str(quarter)[:7], 400 * found.mean[0],
                f"{400 * low[0]:.1f} to {400 * high[0]:.1f}", theirs, *rivals, near[-1] if near else np.nan,
                released[quarter][1] if quarter in released else np.nan, seconds, spent,
            )
        )  # fmt: skip
    heads = [
        "file", "data to", "last GDP", "quarter", "DFM", "90%", "statsmodels", "AR(1)", "mean", "GDPNow",
        "first release", "fit, s", "its fit, s",
    ]  # fmt: skip
    frame = pl.DataFrame(
        {head: list(column) for head, column in zip(heads, zip(*lines, strict=True), strict=True)}
    )
    errors = {
        name: np.sqrt(np.nanmean((frame[name].to_numpy() - frame["first release"].to_numpy()) ** 2))
        for name in ("DFM", "statsmodels", "AR(1)", "mean", "GDPNow")
        if np.isfinite(frame[name].to_numpy()).any()
    }
    usual = frame.filter(pl.col("quarter") != "2020-06")
    milder = {
        name: np.sqrt(np.nanmean((usual[name].to_numpy() - usual["first release"].to_numpy()) ** 2))
        for name in errors
    }
    text, calm = (
        ", ".join(f"{name} {value:.2f}" for name, value in each.items()) for each in (errors, milder)
    )
    peer = "statsmodels is not installed where this was written."
    if gains:
        peer = (
            f"statsmodels {statsmodels_version()} fits the same model to the same values (EM to its default "
            f"tolerance, {min(steps)} to {max(steps)} iterations); the log-likelihood of our parameters less "
            f"that of theirs, both evaluated here, is {np.nanmin(gains):.0f} to {np.nanmax(gains):.0f}."
        )
    return f"""
## Seven vintages of FRED-MD with GDP of FRED-QD

About 118 monthly series and GDP from 1985, two factors, AR(1) terms, outliers beyond ten interquartile ranges
hidden, March to September 2020 masked in estimation. The quarter is the first one without GDP in the file.

{markdown(frame)}

Root mean squared errors over these quarters: {text}; without 2020Q2: {calm}. The outlier rule hides
values of the spring of 2020 from the model; how much of that quarter's miss it explains was not measured.
The files carry the month of a commit and end one to five months earlier, so the day of the information is not
exactly known; GDPNow is its last number within six weeks of the data's end, which may be later or earlier
information. Seven files rank nobody. {peer}
"""


# ------------------------------------------------------------------------------------ pseudo real time


def pseudo_store(data: Path) -> VintageStore:
    """Final values, released by the publication lags and, for GDP, on the days of its first releases."""
    monthly = data / "fred_md" / "fred_md_2023-12.csv.gz"
    panel = mixed_frequency_panel(monthly, data / "fred_qd" / "fred_qd_2025-01.csv.gz")
    panel = panel.between(panel.index.position("1985-01"), panel.index.position("2019-12") + 1)
    panel = panel.select([name for name in panel.assets.tolist() if name in LAGS])
    lags = tuple(LAGS[name] for name in panel.assets.tolist())
    assert panel.series is not None
    calendar = ReleaseCalendar.from_panel(replace(panel, series=replace(panel.series, publication_lag=lags)))
    out = {
        (GDP, end): day
        for end, (day, _) in first_releases(data).items()
        if end >= np.datetime64("1992-12-31")
    }
    return VintageStore.from_calendar(panel, replace(calendar, dates=out))


def pseudo_real_time(data: Path, quick: bool) -> str:
    store = pseudo_store(data)
    months = np.arange(np.datetime64("2005-01"), np.datetime64("2020-01"))
    dates = list(months.astype("datetime64[D]") + np.timedelta64(19, "D"))[:: 30 if quick else 1]
    began = time.process_time()
    config = DFMConfig(n_factors=1, max_iterations=1000)
    records, converged = run(store, dates, data, config)
    seconds = time.process_time() - began
    peer = beside_statsmodels(store, records, config, 30)
    scores = nowcast_table(records, benchmark="AR(1)", days_per_bin=30)
    kept = {
        name: (record.period < np.datetime64("2008-01-01")) | (record.period > np.datetime64("2009-12-31"))
        for name, record in records.items()
    }
    calm = nowcast_table(
        records, benchmark="AR(1)", days_per_bin=30,
        skip=sorted({p for name, record in records.items() for p in record.period[~kept[name]]}),
    )  # fmt: skip
    tests = [each.filter(pl.col("name") == "DFM")["dm_p"].to_numpy() for each in (scores, calm)]
    smallest = float(np.nanmin(np.concatenate(tests)))
    near = scores.filter(pl.col("days_to_release") < 210)
    return f"""
## Pseudo real time, the 20th of every month from {dates[0]} to {dates[-1]}

{store.series.size - 1} monthly series of FRED-MD 2023-12 with the publication lags of today's calendars, and
GDP of FRED-QD 2025-01 on the days of its first releases: the ragged edge is realistic, the values are final
ones, which no forecaster had. One factor, refitted every month ({seconds:.0f} seconds for
{3 * len(dates)} fits; {converged} of {len(dates)} factor models converged). Against the first release.

{markdown(near)}

The same without 2008 and 2009:

{markdown(calm.filter(pl.col("days_to_release") < 210))}

`dm_p` is the two-sided Diebold-Mariano test of equal squared errors against AR(1). No GDPNow here: its record
begins in 2014. The smallest p-value of the factor model in both tables is {smallest:.2f}.

{peer}"""


if __name__ == "__main__":
    main()
