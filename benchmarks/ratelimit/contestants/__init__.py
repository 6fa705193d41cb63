"""The contestants: each module is one, and names its class `CONTESTANT`.

A library is imported by the methods, in the process of a workload, so that the classes can be
imported where the library is missing.
"""
