"""What all tests share: property tests have no deadline an example, since a loaded machine says
nothing about them."""

from hypothesis import settings

settings.register_profile("quadrat", deadline=None)
settings.load_profile("quadrat")
