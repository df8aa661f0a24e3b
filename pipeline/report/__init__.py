"""The report: tables beside the published ones, studies, plots."""
