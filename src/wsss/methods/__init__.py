"""Methods: networks that learn activation maps from image labels alone. One file per method."""

from wsss.methods.base import Frozen, Method, MethodConfig, find_method, list_methods

__all__ = ["Frozen", "Method", "MethodConfig", "find_method", "list_methods"]
