"""What every room shares: errors, config, keyed ids, atomic files, registries and the frame of a stage."""
