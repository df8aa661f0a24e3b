"""Weakly supervised object localization: computes, returns values, is silent. See stages/ for what is run."""
