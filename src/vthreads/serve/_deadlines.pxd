# Compiled without types: the scope of a request derives from a Python class.
