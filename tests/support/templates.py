"""LLaMA-Factory's table of templates, left as it was."""

from typing import Any

import pytest
from llamafactory.data.template import TEMPLATES


@pytest.fixture(autouse=True)
def pristine_templates() -> Any:
    """LLaMA-Factory writes `default_system` into its table of templates, for good."""
    before = {name: template.default_system for name, template in TEMPLATES.items()}
    yield
    for name, system in before.items():
        TEMPLATES[name].default_system = system
