"""Rate limits of HTTP requests: the middleware, limits of routes, headers and refusals."""
