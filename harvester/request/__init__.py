"""One request, from the decision to make it to its one answer or one classified error.

retry (auth) → throttle (permits, pace, quota) → http (body)
                                                 credentials (token_command, redact)

Below retry a request is sent and its body comes back; retry reads it.
"""
