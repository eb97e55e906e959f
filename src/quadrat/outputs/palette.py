"""Colours that any reader can tell apart."""

from __future__ import annotations

Rgb = tuple[int, int, int]
ORANGE: Rgb = (230, 159, 0)
SKY: Rgb = (86, 180, 233)
GREEN: Rgb = (0, 158, 115)
YELLOW: Rgb = (240, 228, 66)
BLUE: Rgb = (0, 114, 178)
VERMILION: Rgb = (213, 94, 0)
PURPLE: Rgb = (204, 121, 167)
BLACK: Rgb = (0, 0, 0)
SAFE: tuple[Rgb, ...] = (ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE, BLACK)
"""Eight colours that differ for any kind of colour vision (M. Okabe and K. Ito, Color
Universal Design, 2008)."""
