"""A web application with mail jobs, pages, fields, compression and limits: `make demo`."""
