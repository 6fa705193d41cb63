"""The demo application: mail jobs, a schedule, a flow, pages, fields, compression and limits.

Start: `make demo`.
"""
