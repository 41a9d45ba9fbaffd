"""Compiled programs from one process to the next: served, checked, and never in the way."""

import jax
import jax.monitoring
import jax.numpy as jnp
import pytest
from damage import flipped
from jax.experimental.compilation_cache import compilation_cache

from jaxood import compiled
from jaxood.compiled import kept_compiled

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where programs are kept, and nothing that JAX was told before."""
    monkeypatch.setattr(compiled, "LEAST_SECONDS", 0.0)
    told = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield tmp_path / "compiled"
    jax.config.update("jax_compilation_cache_dir", told)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def events():
    found: list[str] = []
    jax.monitoring.register_event_listener(lambda event, **_: found.append(event))
    return found


def run(folder, events):
    """How often a program was served, in what would be a new process."""
    jax.clear_caches()
    events.clear()
    with kept_compiled(folder):
        assert jax.jit(lambda x: jnp.sin(x) @ x)(jnp.eye(3)).sum() == pytest.approx(3 * 0.84147098)
    return events.count("/jax/compilation_cache/cache_hits")


def entries(folder):
    return sorted(folder.rglob("*-cache"))


def test_a_program_is_served_to_the_next_process(folder, events):
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    assert run(folder, events) == 0
    assert len(entries(folder)) >= 1
    assert run(folder, events) == len(entries(folder))
    assert {name: getattr(jax.config, name) for name in OPTIONS} == before
    jax.clear_caches()
    events.clear()
    jax.jit(jnp.cos)(1.0)  # outside
    assert not any("compilation_cache/cache" in event for event in events)


def cut(content, generator):
    return content[: len(content) // 2]


def flip(content, generator):
    return next(iter(flipped(content, generator.integers(0, len(content), 1), generator)))


@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("sealed", [True, False])
def test_what_is_damaged_is_compiled_again(folder, events, damage, sealed, capfd):
    import numpy as np

    generator = np.random.default_rng(0)
    for _ in range(2 if sealed else 1):
        run(folder, events)
    assert any(folder.rglob("*.sha256")) == sealed
    whole = {path: path.read_bytes() for path in entries(folder)}
    for path, content in whole.items():
        path.write_bytes(damage(content, generator))
    assert run(folder, events) == 0
    assert run(folder, events) == len(whole) == len(entries(folder))
    assert capfd.readouterr().err == ""


def test_the_oldest_go_when_there_are_too_many(folder, events, monkeypatch):
    run(folder, events)
    monkeypatch.setattr(compiled, "LARGEST", 0)
    assert run(folder, events) == 0


def test_a_cache_of_the_users_own_is_left_alone(folder, events, tmp_path):
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    try:
        with kept_compiled(folder):
            assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
        assert not folder.exists()
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()


def test_a_folder_that_cannot_be_made_is_done_without(folder, events):
    folder.write_text("")
    assert run(folder / "compiled", events) == 0
