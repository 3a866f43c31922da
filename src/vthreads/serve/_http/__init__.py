"""HTTP/1.1 for servers: heads by httptools, the checks above it, bodies, responses, connections."""
