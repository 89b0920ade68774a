"""Where Ray is not installed, a line says what to install."""

import pytest
from executors import has_ray

from exporter.errors import ConfigError
from pipeline.on_ray.messages import Options
from pipeline.ray_executor import RayExecutor


@pytest.mark.skipif(has_ray(), reason="Ray is installed")
def test_without_ray_the_command_that_installs_it_is_said():
    with pytest.raises(ConfigError, match=r"Ray is not installed; pip install 'modelpress\[ray\]'"):
        RayExecutor(Options(None, 1, 60.0, None))
