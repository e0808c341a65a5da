import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_array_equal

from probbnn.inference.store import MemoryStore, ZarrStore

VALUES = {
    "dense": {"kernel": np.arange(2 * 9 * 6.0, dtype=np.float32).reshape(2, 9, 2, 3)},
    "scale": np.arange(18.0).reshape(2, 9),
}


def block(start, stop):
    return {
        "dense": {"kernel": VALUES["dense"]["kernel"][:, start:stop]},
        "scale": VALUES["scale"][:, start:stop],
    }


@pytest.fixture(params=["memory", "zarr"])
def store(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else ZarrStore(tmp_path / "draws.zarr")
    for start in (0, 4, 8):
        store.write("positions", start, block(start, min(start + 4, 9)))
    return store


def test_blocks_come_back_as_one(store):
    found = store.read("positions", 9, range(2))
    assert_array_equal(found["dense"]["kernel"], VALUES["dense"]["kernel"])
    assert_array_equal(found["scale"], VALUES["scale"])


def test_what_is_written_again_stands_there(store):
    store.write("positions", 4, block(0, 4))
    found = store.read("positions", 8, range(2))
    assert_array_equal(found["scale"], np.concatenate([VALUES["scale"][:, :4]] * 2, axis=1))


@pytest.mark.parametrize(
    "key", [0, -1, slice(1), (0, 3), (slice(None), -1), (0, slice(2, 7)), (0, slice(None), 1)]
)
def test_what_is_read_is_what_an_array_would_give(store, key):
    found = store.read("positions", 7, [1])["dense"]["kernel"]
    expected = VALUES["dense"]["kernel"][1:, :7]
    assert_array_equal(np.asarray(found[key]), expected[key])
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype


def test_no_draws_at_all_have_shapes(tmp_path):
    store = ZarrStore(tmp_path / "draws.zarr")
    store.write("positions", 0, block(0, 0))
    assert np.asarray(store.read("positions", 0, range(2))["dense"]["kernel"]).shape == (2, 0, 2, 3)


def test_half_precision_comes_back_as_it_was(tmp_path):
    store = ZarrStore(tmp_path / "draws.zarr")
    values = np.asarray(jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3) / 3)
    store.write("positions", 0, values)
    found = store.read("positions", 3, range(2))
    assert found.dtype == found[:].dtype == np.asarray(found).dtype == jnp.bfloat16
    assert_array_equal(np.asarray(found), values)


def test_xarray_opens_it(tmp_path):
    ZarrStore(tmp_path / "draws.zarr").write("positions", 0, VALUES)
    found = xr.open_zarr(tmp_path / "draws.zarr", group="positions", consolidated=False)
    assert found["dense.kernel"].dims[:2] == ("chain", "draw")
    assert_array_equal(found["scale"], VALUES["scale"])
