"""The contestants: each module in this folder is one, and names its class `CONTESTANT`.

Their libraries are imported when something is made, in the process that works with it; so the
classes can be read where a library is missing.
"""
