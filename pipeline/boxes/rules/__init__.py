"""Box rules: from a heatmap to one box."""
