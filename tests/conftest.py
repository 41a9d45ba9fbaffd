"""Strict JAX for every test: eight virtual CPU devices, no silent promotion of rank or type."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)  # most of the time is compiling
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One folder of trained and converted weights for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", autouse=True)
def forget_compiled():
    """What a file compiled takes gigabytes by the end of all of them."""
    yield
    jax.clear_caches()
