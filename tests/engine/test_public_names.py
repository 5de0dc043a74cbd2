from __future__ import annotations

import subprocess
import sys

import pytest

import wsss


@pytest.mark.parametrize("name", wsss.__all__)
def test_every_public_name_is_there(name: str):
    assert getattr(wsss, name) is not None
    assert name in dir(wsss)


def test_there_are_few_public_names_and_others_are_refused():
    assert len(wsss.__all__) <= 34
    with pytest.raises(AttributeError, match="has no `rnu`"):
        _ = wsss.rnu


@pytest.mark.parametrize("module", ["wsss", "wsss.cli.main"])
def test_importing_the_package_or_its_commands_loads_no_heavy_library(module: str):
    code = f"import sys, {module}; assert not {{'torch', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
