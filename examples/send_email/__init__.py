"""The demo application: mail jobs, pages, fields, compression and limits. Start: `make demo`."""
