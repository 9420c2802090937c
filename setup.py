"""Only what pyproject.toml cannot say: the extension is built by cffi."""

from setuptools import setup

setup(cffi_modules=["cffi_build/build.py:ffibuilder"])
