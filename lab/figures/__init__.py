"""Pictures of what was measured: those that an experiment declares, and those that all have.

They come as matplotlib figures and as SVG that follows light and dark. Colours are in `style`.
"""
