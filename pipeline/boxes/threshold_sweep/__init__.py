"""The threshold sweep: the boxes of every threshold in one pass over a heatmap."""
