"""Rows of a manifest."""

from quadrat.config.manifest import SlideRef


def slide(name, case="", **more):
    return SlideRef(name=name, path=f"{name}.svs", case=case, **more)
