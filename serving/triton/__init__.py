"""A real tritonserver for development and tests, from a wheel, in an environment of its own."""
