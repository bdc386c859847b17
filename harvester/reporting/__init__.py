"""Reducers over the events: counters, report files, the summary, the estimate."""
