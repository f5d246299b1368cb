"""What is wrong with a config, its data, networks and first step, found before training starts."""
