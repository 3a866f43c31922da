"""Seeing what a running program does: traces, stalls, figures. Nothing here runs unless it is asked for."""
