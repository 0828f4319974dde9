from pathlib import Path

import pytest

from tests.book.site import build


@pytest.fixture(scope="session")
def html() -> Path:
    return build()
