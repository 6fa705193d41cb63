"""The contestants. Each module has one: a class with the name `CONTESTANT`.

The methods, not the modules, import the measured libraries. So the classes can be imported where
the library is not installed.
"""
