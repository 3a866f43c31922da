"""A network in memory: hosts, connections and sockets without the operating system."""
