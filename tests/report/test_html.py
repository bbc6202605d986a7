"""The page: complete, escaped, with nothing to load. A browser looks at it where one is installed."""

import shutil
import tomllib
from html.parser import HTMLParser
from importlib.util import find_spec

import polars as pl
import pytest

from latentfactors.errors import StoreError
from latentfactors.evaluate import audit
from latentfactors.jobs import parse_job, read_job, run_job, write_job
from latentfactors.report import pricing, read_run, render_report, write_certificates, write_report
from latentfactors.report.html import to_toml
from tests.cli.small import CONFIG, small_frame, write_small_job
from tests.report.browser import Browser, find_chromium

SECTIONS = [
    "summary", "comparison", "coverage", "fits", "factors", "loadings", "forecasts", "long-short", "pricing",
    "sharpe",
    "audit", "config", "manifest",
]  # fmt: skip
NASTY = "<script>alert(1)</script> & \"x\" '</script>'"


class Page(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._hidden = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._hidden = False

    def handle_data(self, data):
        if not self._hidden:
            self.text += data


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run whose names are hostile."""
    folder = tmp_path_factory.mktemp("run")
    frame = small_frame().with_columns(firm=small_frame()["firm"].str.replace("F1", "<img src=x onerror=y>"))
    frame = with_factors(frame)
    config = CONFIG.replace('name = "PCA"', f"name = '''{NASTY}'''")
    config = config.replace('["size"]', '["size"]\nobserved_factors = ["mkt", "<b>smb"]')
    path = write_small_job(folder, config)
    frame.write_csv(folder / "data.csv")
    job = run_job(read_job(path))
    write_job(job)
    certificates = {name: audit(job.job.predictors[name], job.panel, n_cuts=1) for name in (NASTY, "mean")}
    write_certificates(folder / "results", certificates)
    return folder / "results"


def with_factors(frame):
    """Two factors a month: the mean of all firms, and first against last."""
    return frame.with_columns(
        pl.col("ret").mean().over("month").alias("mkt"),
        (pl.col("ret").first() - pl.col("ret").last()).over("month").alias("<b>smb"),
    )


@pytest.fixture(scope="module")
def page(run_folder):
    return render_report(read_run(run_folder))


def test_all_sections_and_tables(page, run_folder):
    parsed = Page(page)
    assert [attrs["id"] for tag, attrs in parsed.tags if tag == "section"] == SECTIONS
    text = " ".join(parsed.text.split())
    for words in (
        "Total R² uses the realised factors", NASTY, "closed form", "4 predictors", "Not shown:",
        "No fit failed", "expanding", "panel digest", "2 observed factors", "mkt alone", "t of alpha",
        "Model confidence set" if find_spec("arch") else "No model confidence set",
        "the column forecasts better than the row",
        "Observed factors, taken to be returns: mkt, <b>smb", "passed", "Correlations with observed factors",
    ):  # fmt: skip
        assert words in text, words
    r2 = read_run(run_folder).metrics["r2_zero"][1]
    assert f"{100 * r2:.2f}%".replace("-", "−") in text


def test_nothing_is_loaded(page):
    for tag, attrs in Page(page).tags:
        for key in ("src", "href", "data", "action", "srcset", "poster", "xlink:href"):
            address = attrs.get(key)
            assert address is None or address.startswith(("#", "data:")), (tag, address)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in page


def test_users_text_is_escaped(page):
    assert page.count("alert(1)") > 3
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert {tag for tag, _ in Page(page).tags}.isdisjoint({"img", "iframe", "object", "embed"})


def test_the_configuration_reads_back(page, run_folder):
    config = tomllib.loads((run_folder.parent / "config.toml").read_text())
    text = to_toml(config)
    assert tomllib.loads(text) == config
    assert Page(page).text.count('kind = "historical_mean"') == 1
    assert list(parse_job(tomllib.loads(text)).predictors) == [NASTY, "ridge", "mean", "zero"]
    odd = {"a b": {"x": [1, 2.5, True], "y": 'q"\\\n\x7f'}, "t": [{"k": {"z": ["s"]}}]}
    assert tomllib.loads(to_toml(odd)) == odd


def test_records_come_back_with_their_scores(run_folder):
    run = read_run(run_folder)
    for row in run.metrics.iter_rows(named=True):
        found = run.records[row["name"]].metrics()
        assert found["r2_zero"] == pytest.approx(row["r2_zero"], abs=1e-12)
        assert found["n_forecasts"] == row["n_forecasts"]


def test_the_file_is_whole_or_not_there(run_folder, tmp_path):
    path = write_report(run_folder, tmp_path / "a.html")
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert path.stat().st_size < 6e6
    with pytest.raises(StoreError, match="folder that exists"):
        write_report(run_folder, tmp_path / "none" / "a.html")
    with pytest.raises(StoreError, match="file of the run"):
        write_report(run_folder, run_folder / "manifest.json")
    assert [each.name for each in tmp_path.iterdir()] == ["a.html"]


def test_failed_splits_are_told(tmp_path, monkeypatch):
    from latentfactors.models.direct import CrossSectionalRidgePredictor as Ridge

    fit = Ridge.fit

    def fails_late(self, panel):
        if panel.n_periods > 30:
            raise ValueError("<b>no such luck</b>")
        return fit(self, panel)

    monkeypatch.setattr(Ridge, "fit", fails_late)
    write_job(run_job(read_job(write_small_job(tmp_path))))
    run = read_run(tmp_path / "results")
    assert run.data.fits["ridge"].done.tolist() == [True, True, False]
    assert run.records["mean"].metrics()["n_forecasts"] > run.records["ridge"].metrics()["n_forecasts"]
    text = Page(render_report(run)).text
    assert "ridge: 1 failed" in text
    assert "<b>no such luck</b>" in text


def test_pricing_sections_show_what_the_library_says(page, run_folder):
    data = read_run(run_folder).data
    priced = pricing.priced_models(data)
    assert list(priced) == ["mkt alone", "2 observed factors", NASTY]
    line = priced["2 observed factors"].line()
    text = " ".join(Page(page).text.split())
    assert f"{100 * line['mean_abs_alpha']:.3f}%" in text
    assert "repeat" in priced["2 observed factors"].grs_refused  # the factors are made of these assets
    assert f"{priced[NASTY].line()['grs']:.2f}" in text
    sharpe = pricing.sharpe_lines(data)
    assert list(sharpe) == [NASTY, "2 observed factors"]
    assert sharpe[NASTY].n_periods == data.tangencies[NASTY].returns.size - 1 == 15  # one month is live
    assert f"{sharpe[NASTY].out_of_sample:.2f}".replace("-", "−") in text


def test_a_run_without_factors_says_so(tmp_path):
    config = CONFIG[: CONFIG.index("[[predictor]]")] + '[[predictor]]\nname = "zero"\nkind = "zero"\n'
    write_job(run_job(read_job(write_small_job(tmp_path, config))))
    text = " ".join(Page(render_report(read_run(tmp_path / "results"))).text.split())
    assert "No pricing tests: the run has neither observed factors nor factors of its own." in text
    assert "Not audited." in text
    raw = config.replace("lag = 1", 'lag = 1\nvalue_kind = "return"')
    write_job(run_job(read_job(write_small_job(tmp_path, raw))))
    text = " ".join(Page(render_report(read_run(tmp_path / "results"))).text.split())
    assert "the values are raw returns, less no risk-free rate" in text


def test_certificates_belong_to_their_data(run_folder, tmp_path):
    run = read_run(run_folder)
    assert {name: each.verdict for name, each in run.certificates.items()} == {
        NASTY: "passed",
        "mean": "passed",
    }
    assert run.certificates["mean"].trials[0].outcome == "held"
    with pytest.raises(StoreError, match="no predictor 'nobody'"):
        write_certificates(run_folder, {"nobody": run.certificates["mean"]})
    folder = tmp_path / "copy"
    shutil.copytree(run_folder, folder)
    path = folder / "audit.json"
    path.write_text(path.read_text().replace(run.manifest["panel"]["digest"], "another"))
    assert read_run(folder).certificates == {}
    path.write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        read_run(folder)


@pytest.mark.skipif(find_chromium() is None, reason="no chromium is installed")
def test_in_a_browser(run_folder, tmp_path):
    path = write_report(run_folder, tmp_path / "report.html")
    with Browser(find_chromium(), tmp_path / "profile") as browser:
        for width in (390, 1280):
            browser.open(path, width, ready="document.documentElement.dataset.drawn")
            assert browser.requests() == [path.as_uri()]
            assert browser.evaluate("performance.getEntriesByType('resource').length") == 0
            assert browser.complaints() == []
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            assert browser.evaluate("document.querySelectorAll('.plot .main-svg').length") > 0
            drawn = "[...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg'))"
            assert browser.evaluate(drawn)
            for section, plots in (("pricing", 1), ("sharpe", 2), ("audit", 0)):
                found = f"document.querySelectorAll('#{section} .main-svg').length"
                assert (browser.evaluate(found) > 0) == (plots > 0), section
                inside = (
                    f"[...document.querySelectorAll('#{section} .plot, #{section} p')]"
                    f".every(each => each.getBoundingClientRect().right <= {width})"
                )
                assert browser.evaluate(inside), section
            assert browser.evaluate("document.querySelectorAll('#audit tbody tr').length") == 2
        # Turning the phone: the plots follow.
        browser.call(
            "Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False
        )
        browser.evaluate("new Promise(done => setTimeout(done, 1500))")
        assert browser.evaluate("document.documentElement.scrollWidth") <= 390
        widest = "Math.max(...[...document.querySelectorAll('.main-svg')].map(s => s.clientWidth))"
        assert browser.evaluate(widest) <= 390
