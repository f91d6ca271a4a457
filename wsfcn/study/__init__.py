"""Experiments: notebooks run with checked parameters, their records, the page of a course run."""
