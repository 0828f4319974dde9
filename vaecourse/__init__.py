"""A course on variational auto-encoders: one module a chapter, and the tools to teach it."""

from importlib.metadata import version

__version__ = version("vaecourse")
