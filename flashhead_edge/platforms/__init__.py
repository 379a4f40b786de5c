"""Kinds of devices and the facts of this one."""
