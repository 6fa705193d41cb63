"""The contestants: each module in this folder is one, and names its class `CONTESTANT`.

Their libraries are imported when an application is wrapped, in the process that serves it; so the
classes can be read where a library is missing.
"""
