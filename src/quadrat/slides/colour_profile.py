"""The name of an ICC profile. It is reported and never applied: a model sees the pixels of the
scanner."""

from __future__ import annotations

import io

import openslide
from PIL import ImageCms


def profile_name(profile: bytes | None) -> str | None:
    """The name that an ICC profile states; None without one, "unreadable" if it is damaged."""
    if not profile:
        return None
    try:
        return (
            ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip()
            or "unnamed"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return "unreadable"


def handle_profile(handle: openslide.OpenSlide) -> str | None:
    """The same for a slide that OpenSlide holds open. The profiles of associated images are not
    read."""
    try:
        profile = handle.color_profile
    except (openslide.OpenSlideError, ImageCms.PyCMSError, OSError):
        return "unreadable"
    return None if profile is None else ImageCms.getProfileDescription(profile).strip() or "unnamed"
