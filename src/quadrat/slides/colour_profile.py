"""The name of an ICC profile: told of a slide, never applied (a model sees the pixels as the
scanner wrote them)."""

from __future__ import annotations

import io

import openslide
from PIL import ImageCms


def profile_name(profile: bytes | None) -> str | None:
    """The description that an ICC profile states of itself; None without a profile, "unreadable"
    for a damaged one."""
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
    """The same of a slide that OpenSlide holds open; its associated images may have others, which
    are not looked at."""
    try:
        profile = handle.color_profile
    except (openslide.OpenSlideError, ImageCms.PyCMSError, OSError):
        return "unreadable"
    return None if profile is None else ImageCms.getProfileDescription(profile).strip() or "unnamed"
