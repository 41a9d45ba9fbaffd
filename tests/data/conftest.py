"""What several files here use."""

import jaxtyping
import pytest


@pytest.fixture
def unchecked():
    """Annotations are not checked: what a user's call without a type checker meets."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
