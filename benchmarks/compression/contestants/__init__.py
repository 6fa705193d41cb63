"""The contestants: each module is one, and names its class `CONTESTANT`.

A library is imported when an application is wrapped, in the process of the server, so that the
classes can be imported where the library is missing.
"""
