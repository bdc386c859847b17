"""One request, from the decision to make it to its one answer or one classified error.

retry → authorize → throttle (permits, pace, quota) → fetch → body, credentials
"""
