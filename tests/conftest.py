"""Strict JAX for every test: eight virtual CPU devices, no silent promotion of rank or type.

Where there is an accelerator the tests run on it, but for those of a CPU.

Every annotation of the package is checked at run time, shapes among them.
"""

import os
import shutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from jaxtyping import install_import_hook

# Before anything of the package is imported.
install_import_hook("jaxood", "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_collection_modifyitems(items):
    """Tests of one kind of device are left out on the other."""
    other = "gpu" if jax.default_backend() == "cpu" else "cpu"
    for item in items:
        if item.get_closest_marker(other):
            item.add_marker(pytest.mark.skip(reason=f"needs a {other}"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One folder of trained and converted weights for all tests, in whatever process."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return tmp_path_factory.mktemp("cache")
    folder = tmp_path_factory.getbasetemp().parent / "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """The same program is compiled once in a process, however often its files clear the caches."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


@pytest.fixture(scope="module", autouse=True)
def compile_as_it_runs(request):
    """Files marked `optimised` have XLA's optimisations, the others go without, for their time."""
    optimised = any(mark.name == "optimised" for mark in request.node.iter_markers())
    jax.config.update("jax_disable_most_optimizations", not optimised)
    yield
    jax.clear_caches()  # what a file compiled takes gigabytes by the end of all of them


@pytest.fixture(scope="session")
def browser():
    """Without a window, where there is one."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no chromium and chromedriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for option in ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    found = webdriver.Chrome(options, service)
    yield found
    found.quit()
