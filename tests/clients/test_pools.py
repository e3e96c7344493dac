"""Users of multiprocessing.Pool: each computes the same with ours as without a pool."""

from __future__ import annotations

import functools
import io

import pytest

from pidfdpool.multiprocessing import Pool
from tests.clients import pool_work as work


@pytest.fixture
def pool():
    with Pool(2) as made:
        yield made


@pytest.mark.parametrize("chunksize", [1, 7])
def test_tqdm_over_imap(pool, chunksize, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # a thread of its own, which stays
    shown = io.StringIO()
    results = pool.imap(work.square, range(200), chunksize=chunksize)
    assert list(tqdm.tqdm(results, total=200, file=shown)) == [value * value for value in range(200)]
    assert "200/200" in shown.getvalue()
    unordered = pool.imap_unordered(work.square, range(200), chunksize=chunksize)
    assert sorted(tqdm.tqdm(unordered, total=200, file=shown)) == [value * value for value in range(200)]


def test_emcee_samples_the_same_chain(pool):
    emcee = pytest.importorskip("emcee")
    numpy = pytest.importorskip("numpy")
    start = numpy.random.default_rng(5).normal(size=(16, 3))

    def chain(pool):
        numpy.random.seed(5)  # emcee draws from numpy's global generator
        sampler = emcee.EnsembleSampler(16, 3, work.log_probability, pool=pool)
        sampler.run_mcmc(start, 50)
        return sampler.get_chain()

    numpy.testing.assert_array_equal(chain(pool), chain(None))


def test_scipy_evolves_the_same_minimum(pool):
    optimize = pytest.importorskip("scipy.optimize")
    settings = {"bounds": [(-2, 2), (-2, 2)], "updating": "deferred", "rng": 5, "maxiter": 30, "polish": False}
    found = optimize.differential_evolution(work.cost, workers=pool.map, **settings)
    alone = optimize.differential_evolution(work.cost, **settings)
    assert (found.x == alone.x).all()
    assert found.nfev == alone.nfev


def test_pandas_frames_are_summarized_in_chunks(pool):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"key": [f"k{i % 7}" for i in range(10_000)], "value": range(10_000)})
    chunks = [frame.iloc[start : start + 1_000] for start in range(0, len(frame), 1_000)]
    parts = pool.imap_unordered(work.summarize, chunks)
    total = functools.reduce(lambda one, other: one.add(other, fill_value=0), parts)
    pandas.testing.assert_series_equal(total.astype(int), work.summarize(frame), check_names=False)


def test_texts_are_split_in_shards(pool):
    """As libraries of data sets do it: a result for each shard, by apply_async, waited for in turn."""
    texts = [f"line {number} of a text" for number in range(1_000)]
    shards = [texts[index::8] for index in range(8)]
    asked = [pool.map_async(work.split_text, shard) for shard in shards]
    assert [result.get() for result in asked] == [[text.split() for text in shard] for shard in shards]
