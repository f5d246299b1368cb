"""Installation; the settings are in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildWithConfigs(build_py):
    """Puts ``configs/`` into the package, so that they are there without a checkout."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "afdcd" / "configs"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(HERE / "configs", target)


setup(cmdclass={"build_py": BuildWithConfigs})
