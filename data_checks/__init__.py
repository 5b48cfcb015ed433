"""Great Expectations suites as code: what must hold before data goes on."""
