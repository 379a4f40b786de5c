"""The package version, read by the build and by the bundle manifest."""

__version__ = "0.1.0"
